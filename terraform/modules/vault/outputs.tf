output "policy" {
  description = "The broker's policy, in Vault's words."
  value       = module.policies.policy
}

output "references" {
  description = "How services refer to the secrets: add the field, as in vault:kv/stripe#key."
  value       = module.policies.references
}

output "settings_toml" {
  description = "The table [vault] of broker.toml, but for `address` and the files that hold the proof."
  value = join("\n", concat(["[vault]"], var.approle != null ? [
    "login = \"approle\"", "role = ${jsonencode(var.name)}", "mount = ${jsonencode(var.approle.mount)}", "secret_id_wrapped = true",
    ] : var.jwt != null ? [
    "login = \"jwt\"", "role = ${jsonencode(var.name)}", "mount = ${jsonencode(var.jwt.mount)}",
    ] : [
    "login = \"kubernetes\"", "role = ${jsonencode(var.name)}", "mount = ${jsonencode(try(var.kubernetes.mount, "kubernetes"))}",
  ], [""]))
}
