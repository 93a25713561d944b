"""An agent calls an API that takes access tokens: a running broker, a real authorization server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.process import wait_until
from tests.integration.running_broker import BrokerHome, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.oauth import OAuthServer
    from tests.fakes.endpoint import Endpoint
    from tests.integration.running_broker import RunningBroker

POLICY: Final = """
services:
  crm:
    provider: oauth2
    base_url: {api}
    token_url: {server}/token
    revocation_url: {server}/token/revocation
    grant: {{type: client_credentials}}
    client: {{type: client_secret_basic, id: basic, secret: "embedded:crm"}}
    allow_private: true
    ca_file: {ca}
scopes:
  crm.read:
    service: crm
    allow: ["POST /contacts/search"]
    oauth_scopes: [read]
agents:
  coder: {{trust: [{{source: local}}], scopes: [crm.read]}}
"""


@pytest.fixture
def broker(
    oauth_server: OAuthServer, endpoint: Endpoint, tmp_path: Path
) -> Iterator[RunningBroker]:
    home = BrokerHome.create(tmp_path / "home")
    home.run("secret", "put", "crm", stdin=oauth_server.secret("basic").decode())
    home.policy(POLICY.format(api=endpoint.url, server=oauth_server.url, ca=oauth_server.ca_file))
    home.run("agents", "enroll", "coder")
    endpoint.say(200, {"contacts": []})
    with running_broker(home) as running:
        yield running


def test_a_token_is_got_for_the_grant_used_kept_and_ended_with_it(
    broker: RunningBroker, oauth_server: OAuthServer, endpoint: Endpoint
) -> None:
    token = broker.home.run("token", "--agent", "coder", "--scope", "crm.read").strip()
    for _ in range(3):
        assert broker.call(token, "POST", "/crm/contacts/search").status_code == 200
    assert broker.call(token, "POST", "/crm/contacts").status_code == 403
    shown = {sent.headers["authorization"] for sent in endpoint.sent}
    assert len(shown) == 1, "one token for one grant, however many requests"
    used = shown.pop().removeprefix("Bearer ")
    assert token not in used
    assert oauth_server.introspect(used.encode(), "basic")["scope"] == "read"
    (lease,) = json.loads(broker.home.run("leases", "--json"))
    assert (lease["state"], lease["scope"]) == ("used", "crm.read")
    broker.home.run("revoke", "--agent", "coder", "--yes")
    wait_until(
        lambda: broker.call(token, "POST", "/crm/contacts/search").status_code == 401,
        "the broker to hear of it",
    )
    wait_until(
        lambda: oauth_server.introspect(used.encode(), "basic") == {"active": False},
        "the token to be revoked",
    )
    log = (broker.home.path.parent / "output.log").read_text()
    assert used not in log
    assert oauth_server.secret("basic").decode() not in log
