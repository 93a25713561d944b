locals {
  # As it stands in the names of condition keys: the URL without its scheme.
  issuer = var.federation == null ? null : trimprefix(var.federation.issuer, "https://")
  provider_arn = var.federation == null ? null : coalesce(
    var.federation.provider_arn, one(aws_iam_openid_connect_provider.issuer[*].arn)
  )
}

resource "aws_iam_openid_connect_provider" "issuer" {
  count = var.federation != null && try(var.federation.provider_arn, null) == null ? 1 : 0

  url             = var.federation.issuer
  client_id_list  = [var.federation.audience]
  thumbprint_list = var.federation.thumbprints
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = length(var.service_principals) == 0 ? [] : [var.service_principals]

    content {
      sid     = "WhereTheBrokerRuns"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = statement.value
      }
    }
  }

  dynamic "statement" {
    for_each = length(var.principal_arns) == 0 ? [] : [var.principal_arns]

    content {
      sid     = "WhomTheBrokerRunsAs"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }

  dynamic "statement" {
    for_each = var.federation == null ? [] : [var.federation]

    content {
      sid     = "WhoVouchesForTheBroker"
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [local.provider_arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = [statement.value.audience]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = [statement.value.subject]
      }
    }
  }
}

data "aws_iam_policy_document" "permissions" {
  # Under a grant's name, or not at all.
  statement {
    sid       = "OpenSessionsOfTaskRoles"
    actions   = ["sts:AssumeRole"]
    resources = var.task_role_arns

    condition {
      test     = "StringLike"
      variable = "sts:SourceIdentity"
      values   = ["?*"]
    }
  }

  statement {
    sid       = "NameAndTagSessions"
    actions   = ["sts:SetSourceIdentity", "sts:TagSession"]
    resources = var.task_role_arns
  }
}

resource "aws_iam_role" "broker" {
  name                 = var.name
  description          = "The agent token broker itself"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = var.permissions_boundary

  lifecycle {
    precondition {
      condition     = length(var.service_principals) + length(var.principal_arns) > 0 || var.federation != null
      error_message = "Say who the broker is: service_principals, principal_arns or federation."
    }
  }
}

resource "aws_iam_role_policy" "permissions" {
  name   = "open-sessions-of-task-roles"
  role   = aws_iam_role.broker.id
  policy = data.aws_iam_policy_document.permissions.json
}
