variable "kv_mount" {
  description = "Mount of the key-value engine (version 2) that holds the long-lived keys."
  type        = string
  default     = "kv"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.kv_mount))
    error_message = "A mount is a path of letters, digits, '_' and '-'."
  }
}

variable "secrets" {
  description = "Paths within it that the broker may read, each in full, such as stripe or teams/payments/stripe."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for path in var.secrets : can(regex("^[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$", path))])
    error_message = "Name each secret in full, without wildcards: the broker reads what its policy refers to and nothing else."
  }
}

variable "dynamic" {
  description = <<-EOT
    Where engines make credentials for `provider: vault_dynamic`, and how: `read` for
    database/creds/ROLE and its like, `update` for pki/issue/ROLE, ssh/sign/ROLE, kubernetes/creds/ROLE.
  EOT
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for path in keys(var.dynamic) : can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){2,}$", path))])
    error_message = "A path has the engine's mount, what it makes, and the role, without wildcards: database/creds/readonly."
  }

  validation {
    condition     = alltrue([for path in keys(var.dynamic) : !can(regex("^(sys|auth|identity|cubbyhole)/", path))])
    error_message = "Vault's own paths (sys, auth, identity, cubbyhole) are no engine's: with them the broker could give itself more."
  }

  validation {
    condition     = alltrue([for how in values(var.dynamic) : contains(["read", "update"], how)])
    error_message = "It is read or update."
  }
}

variable "token_role" {
  description = "Token role under which credentials are made, if services name one as `token_role`."
  type        = string
  default     = null

  validation {
    condition     = var.token_role == null || can(regex("^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", var.token_role))
    error_message = "A role has letters, digits, '_', '-' and, but at its beginning, '.'."
  }
}

variable "transit_mount" {
  description = "Mount of the transit engine with the broker's own keys, if it has any there."
  type        = string
  default     = "transit"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.transit_mount))
    error_message = "A mount is a path of letters, digits, '_' and '-'."
  }
}

variable "transit_keys" {
  description = "Keys of the broker there, by name: `sign` or `seal`."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.transit_keys) : can(regex("^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", name))])
    error_message = "Name each key in full, without wildcards."
  }

  validation {
    condition     = alltrue([for use in values(var.transit_keys) : contains(["sign", "seal"], use)])
    error_message = "A key is there to sign or to seal."
  }
}
