output "policy" {
  description = "The broker's policy, in Vault's words."
  value = join("\n", [
    for path, capabilities in local.rules :
    "path ${jsonencode(path)} {\n  capabilities = ${jsonencode(capabilities)}\n}\n"
  ])

  precondition {
    condition     = length(local.rules) > 0
    error_message = "The broker would be allowed nothing: name secrets, dynamic or transit_keys."
  }
}

output "references" {
  description = "How services refer to the secrets: add the field, as in vault:kv/stripe#key."
  value       = { for path in var.secrets : path => "vault:${var.kv_mount}/${path}" }
}
