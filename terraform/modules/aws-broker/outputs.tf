output "role_arn" {
  description = "ARN of the broker's role: `broker_arn` of the module aws-task-role."
  value       = aws_iam_role.broker.arn
}

output "provider_arn" {
  description = "ARN of the OpenID Connect provider that vouches for the broker, if there is one."
  value       = local.provider_arn
}

output "credentials" {
  description = "What services of provider aws_sts say under `credentials`; `token_file` is where the broker finds its token."
  value = var.federation == null ? tomap({ type = "default" }) : var.federation.self_issued ? tomap({
    type     = "broker_identity"
    role_arn = aws_iam_role.broker.arn
    audience = var.federation.audience
    }) : tomap({
    type       = "web_identity"
    role_arn   = aws_iam_role.broker.arn
    token_file = "/var/run/secrets/broker/aws-token"
  })
}
