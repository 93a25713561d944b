mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{}"
    }
  }
}

variables {
  name       = "artifacts"
  broker_arn = "arn:aws:iam::123456789012:role/agent-token-broker"
  region     = "eu-west-1"

  ceiling = [
    {
      actions   = ["s3:GetObject"]
      resources = ["arn:aws:s3:::artifacts/*"]
    },
  ]
}

run "what_is_needed_and_no_more" {
  assert {
    condition     = aws_iam_role.task.max_session_duration == 3600
    error_message = "a session of a chained role lives an hour at most"
  }

  assert {
    condition     = yamldecode(output.policy_yaml).scopes["artifacts.use"].session_policy[0].actions == ["s3:GetObject"]
    error_message = "the scope begins with the ceiling"
  }

  assert {
    condition     = !contains(keys(yamldecode(output.policy_yaml).scopes["artifacts.use"]), "session_tags")
    error_message = "no tags were asked for"
  }
}

run "tags_are_filled_from_templates" {
  variables {
    session_tags = ["agent", "task"]
  }

  assert {
    condition     = yamldecode(output.policy_yaml).scopes["artifacts.use"].session_tags == { agent = "{agent}", task = "{task}" }
    error_message = "each tag has the template of its name"
  }
}

run "a_whole_account_is_no_broker" {
  command = plan

  variables {
    broker_arn = "arn:aws:iam::123456789012:root"
  }

  expect_failures = [var.broker_arn]
}

run "everything_is_no_ceiling" {
  command = plan

  variables {
    ceiling = [
      {
        actions   = ["*"]
        resources = ["*"]
      },
    ]
  }

  expect_failures = [var.ceiling]
}

run "nothing_is_no_ceiling" {
  command = plan

  variables {
    ceiling = []
  }

  expect_failures = [var.ceiling]
}

run "aws_knows_no_shorter_maximum" {
  command = plan

  variables {
    max_session_duration = 900
  }

  expect_failures = [var.max_session_duration]
}

run "a_role_is_named_like_a_service" {
  command = plan

  variables {
    name = "Artifacts Role"
  }

  expect_failures = [var.name]
}

run "a_scope_has_room_for_its_name" {
  command = plan

  variables {
    name = "a23456789-123456789-123456789-123456789-123456789-123456789-1"
  }

  expect_failures = [var.name]
}

run "everything_by_another_name_is_no_ceiling" {
  command = plan

  variables {
    ceiling = [
      {
        actions   = ["*:*"]
        resources = ["*"]
      },
    ]
  }

  expect_failures = [var.ceiling]
}

run "a_statement_without_resources_is_none" {
  command = plan

  variables {
    ceiling = [
      {
        actions   = ["s3:GetObject"]
        resources = []
      },
    ]
  }

  expect_failures = [var.ceiling]
}

run "a_tag_that_no_template_fills_is_refused" {
  command = plan

  variables {
    session_tags = ["team"]
  }

  expect_failures = [var.session_tags]
}
