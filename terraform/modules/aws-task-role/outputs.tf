output "role_arn" {
  description = "ARN of the role."
  value       = aws_iam_role.task.arn
}

output "policy_yaml" {
  description = "The service and a scope with the whole ceiling, for the broker's policies: narrow the scope."
  value = yamlencode({
    services = {
      (var.name) = merge(
        {
          provider    = "aws_sts"
          role_arn    = aws_iam_role.task.arn
          region      = var.region
          max_session = var.max_session_duration
          credentials = var.credentials
        },
        var.external_id == null ? {} : { external_id = var.external_id },
      )
    }
    scopes = {
      "${var.name}.use" = merge(
        {
          service  = var.name
          delivery = ["credential"]
          session_policy = [
            for one in var.ceiling : {
              effect    = "Allow"
              actions   = one.actions
              resources = one.resources
            }
          ]
        },
        length(var.session_tags) == 0 ? {} : {
          session_tags = { for key in var.session_tags : key => "{${key}}" }
        },
      )
    }
  })
}
