# What the broker's login to Vault or OpenBao needs so that a service with
# `provider: vault_dynamic` can hand out credentials, and end every one of them.
# Add the paths at which engines make credentials, such as:
#
#   path "database/creds/orders-readonly" { capabilities = ["read"] }
#   path "pki/issue/task"                 { capabilities = ["update"] }

# A token of its own for each credential, which ends with the grant. With `token_role` in the
# service, let this be "auth/token/create/<token_role>" instead.
path "auth/token/create-orphan" {
  capabilities = ["update"]
}

# End a credential when its grant ends, or when nobody knows whether it was made.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

path "sys/leases/revoke" {
  capabilities = ["update"]
}

# Let a credential live to the end of its grant.
path "sys/leases/renew" {
  capabilities = ["update"]
}
