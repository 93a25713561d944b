# Keeps its data in a volume.
storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/files/openbao/cert.pem"
  tls_key_file  = "/files/openbao/key.pem"
}

api_addr          = "https://openbao:8200"
cluster_addr      = "https://openbao:8201"
default_lease_ttl = "10m"
max_lease_ttl     = "1h"
