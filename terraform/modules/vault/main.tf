module "policies" {
  source = "./policies"

  kv_mount      = var.kv_mount
  secrets       = var.secrets
  dynamic       = var.dynamic
  token_role    = var.token_role
  transit_mount = var.transit_mount
  transit_keys  = var.transit_keys
}

resource "vault_policy" "broker" {
  name   = var.name
  policy = module.policies.policy

  lifecycle {
    precondition {
      condition     = var.approle != null || var.jwt != null || var.kubernetes != null
      error_message = "Say how the broker logs in: approle, jwt or kubernetes."
    }
  }
}

resource "vault_mount" "kv" {
  count = var.create_kv_mount ? 1 : 0

  path        = var.kv_mount
  type        = "kv"
  options     = { version = "2" }
  description = "Long-lived keys that agents never see"
}

resource "vault_mount" "transit" {
  count = length(var.transit_keys) > 0 ? 1 : 0

  path        = var.transit_mount
  type        = "transit"
  description = "Keys of the agent token broker"
}

resource "vault_transit_secret_backend_key" "broker" {
  for_each = var.transit_keys

  backend                = vault_mount.transit[0].path
  name                   = each.key
  type                   = each.value == "sign" ? "ecdsa-p256" : "aes256-gcm96"
  deletion_allowed       = false
  exportable             = false
  allow_plaintext_backup = false
}
