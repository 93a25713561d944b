"""Clients that bring their own token exchange, unmodified, at the token endpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import jwt
import pytest
from openai import OAuthError
from openai.auth import WorkloadIdentity, WorkloadIdentityAuth

from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.oidc import OidcIssuer

POLICY = """
identity_sources:
  ci: {{type: oidc, issuer: "{issuer}", ca_file: "{ca_file}", allow_private: true}}
services:
  openai:
    provider: http_api
    base_url: https://api.openai.com
    credential: {{type: bearer, secret: "env:OPENAI_API_KEY"}}
scopes:
  openai.chat: {{service: openai, allow: ["POST /v1/chat/completions"]}}
agents:
  release-bot:
    trust: [{{source: ci, claims: {{repository_id: "123456"}}}}]
    scopes: [openai.chat]
"""


@pytest.fixture(scope="module")
def broker(
    oidc_issuer: OidcIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    folder: Path = tmp_path_factory.mktemp("token-clients")
    home = BrokerHome.create(folder / "home", log_level="debug")
    home.policy(POLICY.format(issuer=oidc_issuer.url, ca_file=oidc_issuer.ca_file))
    with running_broker(home) as running:
        yield running


def _workload(broker: RunningBroker, issuer: OidcIssuer, scopes: str) -> WorkloadIdentityAuth:
    def proof() -> str:
        return issuer.token(
            broker.home.control_url, claims={"sub": "repo:acme/app", "repository_id": "123456"}
        )

    identity: WorkloadIdentity = {
        "identity_provider_id": scopes,
        "service_account_id": "release-bot",
        "provider": {"token_type": "jwt", "get_token": proof},
    }
    return WorkloadIdentityAuth(
        workload_identity=identity, token_exchange_url=f"{broker.home.control_url}/token"
    )


def test_openais_workload_identity(broker: RunningBroker, oidc_issuer: OidcIssuer) -> None:
    token = _workload(broker, oidc_issuer, "openai.chat").get_token()
    keys = broker.http.get(f"{broker.home.control_url}/.well-known/jwks.json").json()
    claims = jwt.decode(
        token,
        jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]],
        algorithms=["ES256"],
        audience=broker.home.gateway_url,
        issuer=broker.home.control_url,
    )
    assert (claims["sub"], claims["scope"]) == ("release-bot", "openai.chat")


def test_openais_workload_identity_is_told_why_not(
    broker: RunningBroker, oidc_issuer: OidcIssuer
) -> None:
    with pytest.raises(OAuthError) as refusal:
        _workload(broker, oidc_issuer, "openai.admin").get_token()
    assert refusal.value.error == "invalid_scope"
    assert "allowed: openai.chat" in str(refusal.value)


def test_t6_a_body_over_the_cap_at_a_real_server(broker: RunningBroker) -> None:
    url = f"{broker.home.control_url}/token"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    announced = broker.http.post(url, content=b"a=1&" * 1_000_000, headers=form)
    assert announced.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    chunked = broker.http.post(url, content=iter([b"a=1&" * 10_000] * 10), headers=form)
    assert chunked.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert json.loads(chunked.content)["error"] == "invalid_request"
