variable "audience" {
  description = "What a job's token is made out to: the broker's issuer URL."
  type        = string

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$", var.audience))
    error_message = "Give the broker's issuer, an https URL."
  }
}

variable "issuer" {
  description = "GitHub's issuer; GitHub Enterprise Server has its own, https://HOST/_services/token."
  type        = string
  default     = "https://token.actions.githubusercontent.com"

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.issuer))
    error_message = "An issuer is an https URL without query, and without a slash at its end."
  }
}

variable "source_name" {
  description = "Name of the identity source in the broker's policy."
  type        = string
  default     = "github-actions"
}

variable "agents" {
  description = <<-EOT
    Agents by name. `repository_id` and `repository_owner_id` are numbers that stay with a repository
    and its owner, where names can be given up and taken by someone else:
    `gh api repos/OWNER/NAME --jq '.id, .owner.id'`. `refs` are branches and tags in full,
    `environments` deployment environments, `workflow_refs` workflow files with their ref, such as
    acme/app/.github/workflows/release.yml@refs/heads/main. At least one of the three narrows each agent.
  EOT
  type = map(object({
    repository_id       = string
    repository_owner_id = optional(string)
    refs                = optional(list(string), [])
    environments        = optional(list(string), [])
    workflow_refs       = optional(list(string), [])
    scopes              = list(string)
    max_ttl             = optional(string)
    description         = optional(string)
  }))

  validation {
    condition     = length(var.agents) > 0
    error_message = "Name one agent at least."
  }

  validation {
    condition = alltrue([
      for one in values(var.agents) :
      can(regex("^[1-9][0-9]*$", one.repository_id)) && can(regex("^[1-9][0-9]*$", coalesce(one.repository_owner_id, "1")))
    ])
    error_message = "repository_id and repository_owner_id are numbers; see the description for how to get them."
  }

  validation {
    condition     = alltrue([for one in values(var.agents) : length(one.scopes) > 0])
    error_message = "An agent without scopes can do nothing: give it one at least."
  }

  validation {
    condition = alltrue([
      for one in values(var.agents) : length(concat(one.refs, one.environments, one.workflow_refs)) > 0
    ])
    error_message = "Anybody who can open a pull request runs a job of the repository: narrow each agent by refs, environments or workflow_refs."
  }

  validation {
    condition = alltrue([
      for one in values(var.agents) : alltrue([for ref in one.refs : can(regex("^refs/(heads|tags)/[^*?\\s]+$", ref))])
    ])
    error_message = "Give refs in full, such as refs/heads/main, without wildcards; pull requests (refs/pull/...) are anybody's."
  }

  validation {
    condition = alltrue([
      for one in values(var.agents) :
      alltrue([for text in concat(one.environments, one.workflow_refs) : can(regex("^[^*?\\s][^*?]*$", text))])
    ])
    error_message = "environments and workflow_refs are exact, without wildcards."
  }
}
