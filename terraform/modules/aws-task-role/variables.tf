variable "name" {
  description = "Name of the role, and of the service in the broker's policy."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?$", var.name))
    error_message = "A name has up to 60 lower-case letters, digits and '-': its scope is called NAME.use, which has 64 at most."
  }
}

variable "broker_arn" {
  description = "ARN of the broker's own role or user: the only one that may assume this role."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[A-Za-z0-9_+=,.@/-]+$", var.broker_arn))
    error_message = "Give one role or user; an account or '*' would let others in."
  }
}

variable "credentials" {
  description = "What the service says under `credentials`: output of the module aws-broker."
  type        = map(string)
  default     = { type = "default" }
}

variable "region" {
  description = "Region whose STS the broker asks."
  type        = string
}

variable "ceiling" {
  description = "What any task may do at most. A scope's session policy narrows it further."
  type = list(object({
    actions   = list(string)
    resources = list(string)
  }))

  validation {
    condition     = length(var.ceiling) > 0
    error_message = "A role that may do nothing is of no use: give a statement at least."
  }

  validation {
    condition     = alltrue([for one in var.ceiling : length(one.actions) > 0 && length(one.resources) > 0])
    error_message = "A statement has actions and resources, one of each at least."
  }

  validation {
    condition     = alltrue(flatten([for one in var.ceiling : [for action in one.actions : can(regex("^[a-z0-9-]+:[A-Za-z0-9*?]+$", action))]]))
    error_message = "Name the actions as service:Action; '*' and '*:*' are no ceiling."
  }
}

variable "session_tags" {
  description = "Keys of the session tags that each session must have; it may have no others. Each is filled from the template of its name: agent, task, grant.jti or claims.NAME."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for key in var.session_tags : can(regex("^(agent|task|grant\\.jti|claims\\.[A-Za-z0-9_.:/=+@-]+)$", key))])
    error_message = "The broker has templates for agent, task, grant.jti and claims.NAME; a tag of another name would stay empty."
  }
}

variable "external_id" {
  description = "What the broker must name to be let in, where the role is in another's account."
  type        = string
  default     = null
}

variable "max_session_duration" {
  description = "Seconds that a session may live. A broker that is itself a role gets 3600 at most."
  type        = number
  default     = 3600

  validation {
    condition     = var.max_session_duration >= 3600 && var.max_session_duration <= 43200
    error_message = "AWS takes 3600 to 43200 seconds."
  }
}

variable "permissions_boundary" {
  description = "ARN of a managed policy that bounds the role from outside, if there is one."
  type        = string
  default     = null
}
