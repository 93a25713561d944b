variable "name" {
  description = "Name of the broker's policy and of its role in each auth method."
  type        = string
  default     = "agent-token-broker"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$", var.name))
    error_message = "A name has up to 64 lower-case letters, digits and '-'."
  }
}

variable "kv_mount" {
  description = "Mount of the key-value engine (version 2) that holds the long-lived keys."
  type        = string
  default     = "kv"
}

variable "create_kv_mount" {
  description = "Whether to mount that engine; false where it is there already."
  type        = bool
  default     = true
}

variable "secrets" {
  description = "Paths within it that the broker may read, each in full. Their values are written by people, not by Terraform, whose state would hold them."
  type        = set(string)
  default     = []
}

variable "dynamic" {
  description = "Where engines make credentials for `provider: vault_dynamic`: path = read | update."
  type        = map(string)
  default     = {}
}

variable "token_role" {
  description = "Token role under which credentials are made, if services name one as `token_role`."
  type        = string
  default     = null
}

variable "transit_mount" {
  description = "Mount of the transit engine for `transit_keys`; it is made if there are any."
  type        = string
  default     = "transit"
}

variable "transit_keys" {
  description = "Keys that never leave Vault, by name: `sign` (ECDSA P-256) or `seal` (AES-256-GCM)."
  type        = map(string)
  default     = {}
}

variable "token_ttl" {
  description = "Seconds that the broker's Vault token lives; the broker renews it."
  type        = number
  default     = 1200

  validation {
    condition     = var.token_ttl >= 60 && var.token_ttl <= 86400
    error_message = "Between a minute and a day."
  }
}

variable "approle" {
  description = "Log in with an AppRole, if this is given: addresses from which, and seconds that a secret_id is good for."
  type = object({
    mount              = optional(string, "approle")
    create_mount       = optional(bool, true)
    bound_cidrs        = optional(list(string))
    secret_id_ttl      = optional(number, 600)
    secret_id_num_uses = optional(number, 1)
  })
  default = null
}

variable "jwt" {
  description = "Log in with a token of an OpenID Connect issuer, if this is given."
  type = object({
    issuer   = string
    subject  = string
    audience = string
    mount    = optional(string, "jwt")
    ca_pem   = optional(string)
  })
  default = null

  validation {
    condition     = var.jwt == null || can(regex("^[^*?\\s]+$", var.jwt.subject))
    error_message = "Give the subject in full: a wildcard would let other workloads be the broker."
  }
}

variable "kubernetes" {
  description = "Log in with the service account of the broker's pod, if this is given."
  type = object({
    host            = string
    namespace       = string
    service_account = string
    audience        = optional(string)
    mount           = optional(string, "kubernetes")
    ca_pem          = optional(string)
  })
  default = null

  validation {
    condition     = var.kubernetes == null || can(regex("^[^*?\\s]+ [^*?\\s]+$", "${var.kubernetes.namespace} ${var.kubernetes.service_account}"))
    error_message = "Give namespace and service account in full, without wildcards."
  }
}
