variable "name" {
  description = "Name of the broker's role."
  type        = string
  default     = "agent-token-broker"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.name))
    error_message = "A role name has up to 64 letters, digits and _+=,.@-."
  }
}

variable "task_role_arns" {
  description = "ARNs of the roles that the broker may open sessions of. One '*' may end the last part, such as role/tasks/*."
  type        = list(string)

  validation {
    condition     = length(var.task_role_arns) > 0
    error_message = "A broker that may assume no role mints nothing: name one at least."
  }

  validation {
    condition = alltrue([
      for arn in var.task_role_arns :
      can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/([A-Za-z0-9_+=,.@/-]+|([A-Za-z0-9_+=,.@-]+/)+\\*)$", arn))
    ])
    error_message = "Give roles as arn:aws:iam::123456789012:role/name; '*' alone, or an account's every role, would be all there is."
  }
}

variable "service_principals" {
  description = "AWS services that the broker runs on, such as ec2.amazonaws.com or ecs-tasks.amazonaws.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for one in var.service_principals : can(regex("^[a-z0-9.-]+\\.amazonaws\\.com(\\.cn)?$", one))])
    error_message = "A service principal ends in .amazonaws.com."
  }
}

variable "principal_arns" {
  description = "ARNs of roles or users that the broker runs as and that assume this role."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for one in var.principal_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[A-Za-z0-9_+=,.@/-]+$", one))])
    error_message = "Give single roles or users; an account or '*' would let others in."
  }
}

variable "federation" {
  description = <<-EOT
    OpenID Connect issuer that vouches for the broker: a cluster's, a CI system's or another broker's.
    `subject` is the exact `sub` of the broker's token. An issuer that this account knows already is
    named by `provider_arn`; otherwise it is made. `thumbprints` are for issuers whose certificate
    AWS cannot verify by itself. With `self_issued` the issuer is this broker, which vouches for itself
    with a token of its own; its subject is agent-token-broker.
  EOT
  type = object({
    issuer       = string
    subject      = string
    audience     = optional(string, "sts.amazonaws.com")
    provider_arn = optional(string)
    thumbprints  = optional(list(string))
    self_issued  = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.federation == null || can(regex("^https://[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.federation.issuer))
    error_message = "An issuer is an https URL without query, and without a slash at its end."
  }

  validation {
    condition     = var.federation == null || can(regex("^[^*?\\s]+$", var.federation.subject))
    error_message = "Give the subject in full: a wildcard would let other workloads be the broker."
  }

  validation {
    condition     = try(!var.federation.self_issued || var.federation.subject == "agent-token-broker", true)
    error_message = "A broker says of itself that it is agent-token-broker; task tokens, of the same issuer, have other subjects."
  }
}

variable "permissions_boundary" {
  description = "ARN of a managed policy that bounds the role from outside, if there is one."
  type        = string
  default     = null
}
