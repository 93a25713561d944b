locals {
  read = { for path in var.secrets : "${var.kv_mount}/data/${path}" => ["read"] }

  # A token of its own for each credential, which ends with the grant; and an end to what it made.
  mint = length(var.dynamic) == 0 ? {} : merge(
    { for path, how in var.dynamic : path => [how] },
    {
      (var.token_role == null ? "auth/token/create-orphan" : "auth/token/create/${var.token_role}") = ["update"]

      "auth/token/revoke-accessor" = ["update"]
      "sys/leases/revoke"          = ["update"]
      "sys/leases/renew"           = ["update"]
    },
  )

  sign = merge([
    for name, use in var.transit_keys : use != "sign" ? {} : {
      "${var.transit_mount}/sign/${name}" = ["update"]
      "${var.transit_mount}/keys/${name}" = ["read"]
    }
  ]...)
  seal = merge([
    for name, use in var.transit_keys : use != "seal" ? {} : {
      "${var.transit_mount}/encrypt/${name}" = ["update"]
      "${var.transit_mount}/decrypt/${name}" = ["update"]
    }
  ]...)

  rules = merge(local.read, local.mint, local.sign, local.seal)
}
