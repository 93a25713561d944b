variables {
  audience = "https://broker.example.com"

  agents = {
    release-bot = {
      repository_id = "123456"
      refs          = ["refs/heads/main"]
      scopes        = ["issues.read"]
    }
  }
}

run "by_number_and_ref" {
  assert {
    condition     = jsonencode(yamldecode(output.policy_yaml).agents.release-bot.trust[0].claims) == jsonencode({ repository_id = "123456", ref = ["refs/heads/main"] })
    error_message = "the repository is known by its number, the branch by its full name"
  }

  assert {
    condition     = yamldecode(output.policy_yaml).identity_sources.github-actions.audiences == ["https://broker.example.com"]
    error_message = "a token for anybody else is not for the broker"
  }
}

run "a_name_is_no_number" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "acme/app", refs = ["refs/heads/main"], scopes = ["issues.read"] }
    }
  }

  expect_failures = [var.agents]
}

run "a_whole_repository_is_too_much" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "123456", scopes = ["issues.read"] }
    }
  }

  expect_failures = [var.agents]
}

run "a_ref_has_no_wildcard" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "123456", refs = ["refs/heads/*"], scopes = ["issues.read"] }
    }
  }

  expect_failures = [var.agents]
}

run "pull_requests_are_anybody_s" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "123456", refs = ["refs/pull/1/merge"], scopes = ["issues.read"] }
    }
  }

  expect_failures = [var.agents]
}

run "an_environment_has_no_wildcard" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "123456", environments = ["*"], scopes = ["issues.read"] }
    }
  }

  expect_failures = [var.agents]
}

run "no_scope_is_no_agent" {
  command = plan

  variables {
    agents = {
      release-bot = { repository_id = "123456", refs = ["refs/heads/main"], scopes = [] }
    }
  }

  expect_failures = [var.agents]
}

run "nobody_is_no_policy" {
  command = plan

  variables {
    agents = {}
  }

  expect_failures = [var.agents]
}

run "an_issuer_is_exact" {
  command = plan

  variables {
    issuer = "https://token.actions.githubusercontent.com/"
  }

  expect_failures = [var.issuer]
}

run "the_audience_is_a_broker" {
  command = plan

  variables {
    audience = "*"
  }

  expect_failures = [var.audience]
}
