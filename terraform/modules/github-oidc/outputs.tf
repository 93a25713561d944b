output "policy_yaml" {
  description = "The identity source and the agents, for the broker's policies. Their scopes stand elsewhere."
  value = yamlencode({
    identity_sources = {
      (var.source_name) = {
        type          = "oidc"
        issuer        = var.issuer
        audiences     = [var.audience]
        algorithms    = ["RS256"]
        replay        = "single_use"
        max_token_age = "15m"
      }
    }
    agents = {
      for name, one in var.agents : name => merge(
        {
          trust  = [{ source = var.source_name, claims = local.claims[name] }]
          scopes = one.scopes
        },
        one.max_ttl == null ? {} : { max_ttl = one.max_ttl },
        one.description == null ? {} : { description = one.description },
      )
    }
  })
}
