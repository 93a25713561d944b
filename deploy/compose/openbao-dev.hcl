# Forgets everything when it stops.
storage "inmem" {}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/files/openbao/cert.pem"
  tls_key_file  = "/files/openbao/key.pem"
}

api_addr          = "https://openbao:8200"
default_lease_ttl = "10m"
max_lease_ttl     = "1h"
