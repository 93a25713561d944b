run "a_secret_is_read_and_nothing_else" {
  variables {
    secrets = ["stripe"]
  }

  assert {
    condition     = output.policy == "path \"kv/data/stripe\" {\n  capabilities = [\"read\"]\n}\n"
    error_message = "one path, one capability"
  }

  assert {
    condition     = output.references == { stripe = "vault:kv/stripe" }
    error_message = "that is how services refer to it"
  }
}

run "minting_takes_ending" {
  variables {
    dynamic = { "database/creds/readonly" = "read" }
  }

  assert {
    condition = alltrue([
      for path in ["database/creds/readonly", "auth/token/create-orphan", "auth/token/revoke-accessor", "sys/leases/revoke", "sys/leases/renew"] :
      strcontains(output.policy, "path \"${path}\"")
    ])
    error_message = "whoever makes a credential must be able to end it"
  }

  assert {
    condition     = !strcontains(output.policy, "kv/")
    error_message = "no secret was named"
  }
}

run "a_token_role_takes_the_place_of_orphans" {
  variables {
    dynamic    = { "pki/issue/task" = "update" }
    token_role = "broker"
  }

  assert {
    condition     = strcontains(output.policy, "path \"auth/token/create/broker\"") && !strcontains(output.policy, "create-orphan")
    error_message = "tokens are made under the role alone"
  }
}

run "keys_are_used_and_not_read" {
  variables {
    transit_keys = { signing = "sign", sealing = "seal" }
  }

  assert {
    condition = alltrue([
      for path in ["transit/sign/signing", "transit/keys/signing", "transit/encrypt/sealing", "transit/decrypt/sealing"] :
      strcontains(output.policy, "path \"${path}\"")
    ])
    error_message = "each key is used in its own way"
  }

  assert {
    condition     = !strcontains(output.policy, "export") && !strcontains(output.policy, "decrypt/signing")
    error_message = "and in no other"
  }
}

run "nothing_is_no_policy" {
  command = plan

  expect_failures = [output.policy]
}

run "a_secret_has_no_wildcard" {
  command = plan

  variables {
    secrets = ["*"]
  }

  expect_failures = [var.secrets]
}

run "no_way_up" {
  command = plan

  variables {
    secrets = ["../sys/seal"]
  }

  expect_failures = [var.secrets]
}

run "an_engine_path_has_no_wildcard" {
  command = plan

  variables {
    dynamic = { "database/creds/*" = "read" }
  }

  expect_failures = [var.dynamic]
}

run "an_engine_path_is_read_or_updated" {
  command = plan

  variables {
    dynamic = { "database/creds/readonly" = "sudo" }
  }

  expect_failures = [var.dynamic]
}

run "vault_itself_is_no_engine" {
  command = plan

  variables {
    dynamic = { "sys/policies/acl/agent-token-broker" = "update" }
  }

  expect_failures = [var.dynamic]
}

run "the_broker_s_own_login_is_no_engine" {
  command = plan

  variables {
    dynamic = { "auth/token/create" = "update" }
  }

  expect_failures = [var.dynamic]
}

run "a_key_has_no_wildcard" {
  command = plan

  variables {
    transit_keys = { "*" = "sign" }
  }

  expect_failures = [var.transit_keys]
}

run "a_token_role_is_a_name" {
  command = plan

  variables {
    token_role = ".."
  }

  expect_failures = [var.token_role]
}
