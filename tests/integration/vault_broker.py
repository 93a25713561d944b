"""A broker whose one key is in OpenBao and whose agents an OpenID issuer vouches for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.oidc import OidcIssuer
    from tests.components.openbao import OpenBao
    from tests.fakes.vendor_api import VendorApi

KEY = "sk_live_kept_in_the_vault_and_nowhere_else"

POLICY = """
identity_sources:
  ci:
    type: oidc
    issuer: {issuer}
    algorithms: [RS256]
    replay: single_use
    max_token_age: 10m
    ca_file: {ca_file}
    allow_private: true
services:
  stripe:
    provider: http_api
    base_url: {vendor}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, secret: "vault:{mount}/stripe#key"}}
scopes:
  stripe.read:
    service: stripe
    allow: ["GET /v1/charges"]
  stripe.refund:
    service: stripe
    allow: ["GET /v1/charges", "POST /v1/refunds"]
    reason: required
agents:
  release-bot:
    trust:
      - source: ci
        claims: {{repository_id: "123456", ref: refs/heads/main}}
    scopes: [stripe.read]
"""
CLAIMS = {"sub": "repo:acme/app", "repository_id": "123456", "ref": "refs/heads/main"}


@contextmanager
def vault_broker(
    directory: Path, openbao: OpenBao, issuer: OidcIssuer, vendor: VendorApi, **settings: str
) -> Iterator[RunningBroker]:
    """Run a broker that logs in by AppRole, with a secret_id that comes wrapped."""
    mount = openbao.kv()
    openbao.put(mount, "stripe", key=KEY)
    role = openbao.approle(
        openbao.policy(f'path "{mount}/data/stripe" {{ capabilities = ["read"] }}')
    )
    home = BrokerHome.create(
        directory / "broker" / "home",
        vault_address=openbao.address,
        vault_login="approle",
        vault_role=role.name,
        vault_role_id_file=_private(directory / "role-id", role.role_id),
        vault_secret_id_file=_private(directory / "secret-id", role.wrapping_token),
        vault_secret_id_wrapped="true",
        **settings,
    )
    home.policy(
        POLICY.format(issuer=issuer.url, ca_file=issuer.ca_file, vendor=vendor.url, mount=mount)
    )
    with running_broker(home) as running:
        yield running


def proof(broker: RunningBroker, issuer: OidcIssuer, **claims: str) -> str:
    """Return a fresh workload identity: the trusted one, but for `claims`."""
    return issuer.token(broker.home.control_url, claims=CLAIMS | claims)


def _private(path: Path, content: str) -> str:
    path.touch(mode=0o600)
    path.write_text(content)
    return str(path)
