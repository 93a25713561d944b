# A broker that reads one key, makes logins for one database role, and logs in by AppRole.

terraform {
  required_version = ">= 1.5"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.0"
    }
  }
}

provider "vault" {} # VAULT_ADDR and VAULT_TOKEN

module "vault" {
  source = "../../modules/vault"

  secrets = ["stripe"]
  dynamic = { "database/creds/orders-readonly" = "read" }
  approle = { bound_cidrs = ["10.0.0.0/24"] }
}

output "settings_toml" {
  description = "What to put into broker.toml, beside `address`, `role_id_file` and `secret_id_file`."
  value       = module.vault.settings_toml
}
