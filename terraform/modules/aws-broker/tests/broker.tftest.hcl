mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{}"
    }
  }

  mock_resource "aws_iam_openid_connect_provider" {
    defaults = {
      arn = "arn:aws:iam::123456789012:oidc-provider/oidc.cluster.example.com"
    }
  }

  mock_resource "aws_iam_role" {
    defaults = {
      arn = "arn:aws:iam::123456789012:role/agent-token-broker"
    }
  }
}

variables {
  task_role_arns     = ["arn:aws:iam::123456789012:role/tasks/*"]
  service_principals = ["ecs-tasks.amazonaws.com"]
}

run "a_machine_needs_no_token" {
  assert {
    condition     = output.credentials == tomap({ type = "default" })
    error_message = "the default chain has what it needs"
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.issuer) == 0 && output.provider_arn == null
    error_message = "no issuer was named"
  }

  assert {
    condition     = !strcontains(jsonencode(data.aws_iam_policy_document.permissions.statement), "\"iam:")
    error_message = "policies of roles are never the broker's"
  }
}

run "the_broker_vouches_for_itself" {
  variables {
    service_principals = []
    federation = {
      issuer      = "https://broker.example.com"
      subject     = "agent-token-broker"
      audience    = "aws.acme"
      self_issued = true
    }
  }

  assert {
    condition = output.credentials == tomap({
      type     = "broker_identity"
      role_arn = aws_iam_role.broker.arn
      audience = "aws.acme"
    })
    error_message = "there is no token in a file"
  }

  assert {
    condition = toset([
      for one in data.aws_iam_policy_document.trust.statement[0].condition : "${one.variable}=${join(",", one.values)}"
      ]) == toset([
      "broker.example.com:aud=aws.acme",
      "broker.example.com:sub=agent-token-broker",
    ])
    error_message = "task tokens are of the same issuer, and must not do"
  }
}

run "an_agent_does_not_vouch_for_the_broker" {
  command = plan

  variables {
    federation = {
      issuer      = "https://broker.example.com"
      subject     = "release-bot"
      self_issued = true
    }
  }

  expect_failures = [var.federation]
}

run "an_issuer_vouches" {
  variables {
    service_principals = []
    federation = {
      issuer  = "https://oidc.cluster.example.com"
      subject = "system:serviceaccount:agents:broker"
    }
  }

  assert {
    condition     = output.provider_arn == "arn:aws:iam::123456789012:oidc-provider/oidc.cluster.example.com"
    error_message = "the issuer becomes a provider"
  }

  assert {
    condition     = output.credentials.type == "web_identity" && output.credentials.role_arn == aws_iam_role.broker.arn
    error_message = "the broker shows its token for its own role"
  }

  assert {
    condition = toset([
      for one in data.aws_iam_policy_document.trust.statement[0].condition : "${one.variable}=${join(",", one.values)}"
      ]) == toset([
      "oidc.cluster.example.com:aud=sts.amazonaws.com",
      "oidc.cluster.example.com:sub=system:serviceaccount:agents:broker",
    ])
    error_message = "audience and subject are both exact"
  }
}

run "an_issuer_that_is_known_is_not_made_again" {
  variables {
    federation = {
      issuer       = "https://oidc.cluster.example.com"
      subject      = "system:serviceaccount:agents:broker"
      provider_arn = "arn:aws:iam::123456789012:oidc-provider/elsewhere"
    }
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.issuer) == 0 && output.provider_arn == "arn:aws:iam::123456789012:oidc-provider/elsewhere"
    error_message = "the one that there is serves"
  }
}

run "nobody_is_no_broker" {
  command = plan

  variables {
    service_principals = []
  }

  expect_failures = [aws_iam_role.broker]
}

run "every_role_of_an_account_is_too_much" {
  command = plan

  variables {
    task_role_arns = ["arn:aws:iam::123456789012:role/*"]
  }

  expect_failures = [var.task_role_arns]
}

run "anybody_s_role_is_too_much" {
  command = plan

  variables {
    task_role_arns = ["*"]
  }

  expect_failures = [var.task_role_arns]
}

run "a_subject_has_no_wildcard" {
  command = plan

  variables {
    federation = {
      issuer  = "https://oidc.cluster.example.com"
      subject = "system:serviceaccount:agents:*"
    }
  }

  expect_failures = [var.federation]
}

run "an_issuer_speaks_tls" {
  command = plan

  variables {
    federation = {
      issuer  = "http://oidc.cluster.example.com"
      subject = "broker"
    }
  }

  expect_failures = [var.federation]
}

run "an_account_is_not_the_broker" {
  command = plan

  variables {
    principal_arns = ["arn:aws:iam::123456789012:root"]
  }

  expect_failures = [var.principal_arns]
}
