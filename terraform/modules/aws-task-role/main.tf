# Nobody gets in but the broker, and the broker only under a grant's name.
data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "BrokerOpensSessions"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [var.broker_arn]
    }

    condition {
      test     = "StringLike"
      variable = "sts:SourceIdentity"
      values   = ["?*"]
    }

    dynamic "condition" {
      for_each = var.external_id == null ? [] : [var.external_id]

      content {
        test     = "StringEquals"
        variable = "sts:ExternalId"
        values   = [condition.value]
      }
    }

    dynamic "condition" {
      for_each = var.session_tags

      content {
        test     = "StringLike"
        variable = "aws:RequestTag/${condition.value}"
        values   = ["?*"]
      }
    }
  }

  statement {
    sid     = "BrokerNamesGrants"
    actions = ["sts:SetSourceIdentity"]

    principals {
      type        = "AWS"
      identifiers = [var.broker_arn]
    }
  }

  dynamic "statement" {
    for_each = length(var.session_tags) == 0 ? [] : [var.session_tags]

    content {
      sid     = "BrokerTagsSessions"
      actions = ["sts:TagSession"]

      principals {
        type        = "AWS"
        identifiers = [var.broker_arn]
      }

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "aws:TagKeys"
        values   = statement.value
      }
    }
  }
}

data "aws_iam_policy_document" "ceiling" {
  dynamic "statement" {
    for_each = var.ceiling

    content {
      actions   = statement.value.actions
      resources = statement.value.resources
    }
  }

  # A session that opens another would leave its grant behind.
  statement {
    sid       = "SessionsOpenNoSessions"
    effect    = "Deny"
    actions   = ["sts:AssumeRole", "sts:GetFederationToken"]
    resources = ["*"]
  }
}

resource "aws_iam_role" "task" {
  name                 = var.name
  description          = "Assumed by the agent token broker, for one task at a time"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = var.max_session_duration
  permissions_boundary = var.permissions_boundary
}

resource "aws_iam_role_policy" "ceiling" {
  name   = "ceiling"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.ceiling.json
}
