resource "vault_auth_backend" "approle" {
  count = try(var.approle.create_mount, false) ? 1 : 0

  type = "approle"
  path = var.approle.mount
}

resource "vault_approle_auth_backend_role" "broker" {
  count = var.approle == null ? 0 : 1

  backend            = var.approle.mount
  role_name          = var.name
  token_policies     = [vault_policy.broker.name]
  token_ttl          = var.token_ttl
  token_bound_cidrs  = var.approle.bound_cidrs
  secret_id_ttl      = var.approle.secret_id_ttl
  secret_id_num_uses = var.approle.secret_id_num_uses

  depends_on = [vault_auth_backend.approle]
}

resource "vault_jwt_auth_backend" "issuer" {
  count = var.jwt == null ? 0 : 1

  path                  = var.jwt.mount
  oidc_discovery_url    = var.jwt.issuer
  oidc_discovery_ca_pem = var.jwt.ca_pem
  bound_issuer          = var.jwt.issuer
}

resource "vault_jwt_auth_backend_role" "broker" {
  count = var.jwt == null ? 0 : 1

  backend         = vault_jwt_auth_backend.issuer[0].path
  role_name       = var.name
  role_type       = "jwt"
  user_claim      = "sub"
  bound_audiences = [var.jwt.audience]
  bound_subject   = var.jwt.subject
  token_policies  = [vault_policy.broker.name]
  token_ttl       = var.token_ttl
}

resource "vault_auth_backend" "kubernetes" {
  count = var.kubernetes == null ? 0 : 1

  type = "kubernetes"
  path = var.kubernetes.mount
}

resource "vault_kubernetes_auth_backend_config" "cluster" {
  count = var.kubernetes == null ? 0 : 1

  backend            = vault_auth_backend.kubernetes[0].path
  kubernetes_host    = var.kubernetes.host
  kubernetes_ca_cert = var.kubernetes.ca_pem
}

resource "vault_kubernetes_auth_backend_role" "broker" {
  count = var.kubernetes == null ? 0 : 1

  backend                          = vault_auth_backend.kubernetes[0].path
  role_name                        = var.name
  bound_service_account_names      = [var.kubernetes.service_account]
  bound_service_account_namespaces = [var.kubernetes.namespace]
  audience                         = var.kubernetes.audience
  alias_name_source                = "serviceaccount_uid"
  token_policies                   = [vault_policy.broker.name]
  token_ttl                        = var.token_ttl

  depends_on = [vault_kubernetes_auth_backend_config.cluster]
}
