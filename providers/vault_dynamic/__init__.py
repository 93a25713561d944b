"""Credentials that an engine of Vault or OpenBao makes on demand, cut to one grant.

Any engine whose path hands out credentials will do: database, PKI, Kubernetes, SSH, AWS, ...
A scope names the path under the service's mount, and what is sent there:

    services:
      orders-db: {provider: vault_dynamic, mount: database}
    scopes:
      orders.read:
        service: orders-db
        delivery: [credential]
        path: creds/orders-readonly

For each credential the broker first makes a Vault token of its own, with the grant's remaining
life as its fixed end, and keeps the token's accessor. What the engine makes is made with that
token, so it belongs to it: Vault ends it with the token, at the latest when the grant ends,
whatever becomes of the broker; and a broker that has crashed at any point finds in the accessor
all that it needs to end it sooner.

An engine that gives no lease (a certificate of a PKI role without `generate_lease`, a signed
SSH key) cannot be made to take it back: then the scope must say `unleased: true` and
`ttl_parameter`, the name under which the engine takes a lifetime.

`delivery: [proxy]` keeps what was made inside: the gateway writes it into requests that `allow`
permits, if the service says where they go and how it is shown there:

    services:
      cluster:
        provider: vault_dynamic
        mount: kubernetes
        base_url: https://cluster.example:6443
        credential: {type: bearer, field: service_account_token}

The broker's login needs what `policies/vault/dynamic.hcl` gives, and whatever the engine's
paths ask for, unless a token role's policies have that.
"""

from __future__ import annotations

from typing import Final

from providers.base import Plugin
from providers.vault_dynamic.fields import (
    VaultDynamicScope,
    VaultDynamicService,
    token_slots,
    upstream,
)
from providers.vault_dynamic.provider import VaultDynamic

PLUGIN: Final = Plugin(
    kind="vault_dynamic",
    service_model=VaultDynamicService,
    scope_model=VaultDynamicScope,
    deliveries=frozenset({"proxy", "credential"}),
    http_rules=True,
    build=VaultDynamic,
    upstream=upstream,
    token_slots=token_slots,
    secret_references=lambda _: (),
    needs_vault=True,
)
