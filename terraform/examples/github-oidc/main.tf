# The release workflow of one repository, on its main branch, may read issues of that repository.

terraform {
  required_version = ">= 1.5"
}

module "github" {
  source = "../../modules/github-oidc"

  audience = "https://broker.example.com"

  agents = {
    release-bot = {
      description         = "The release workflow of the main branch, and nothing else"
      repository_id       = "123456"
      repository_owner_id = "7890"
      refs                = ["refs/heads/main"]
      workflow_refs       = ["acme/app/.github/workflows/release.yml@refs/heads/main"]
      scopes              = ["issues.read"]
      max_ttl             = "15m"
    }
  }
}

output "policy_yaml" {
  description = "What to put into the broker's policies."
  value       = module.github.policy_yaml
}
