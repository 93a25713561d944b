"""U16: over plain http no credential is ever sent, unless the service itself says so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.errors import PolicyError
from tests.fakes.gateway import KEY, policy, policy_text
from tests.fakes.switching import ASKED
from tests.fakes.upstream import recording_upstream, reply

if TYPE_CHECKING:
    from tests.components.tls import TestAuthority
    from tests.fakes.gateway import GatewayBench

GITHUB = (
    "services: {github: {provider: github_app, app_id: 1, installation: acme, "
    'private_key: "vault:kv/app#pem", base_url: "http://api.test"%s}}'
)


@pytest.mark.parametrize("fields", ["", ", insecure_http: false"])
def test_u16_a_policy_that_would_does_not_load(fields: str) -> None:
    for text in (policy_text(f"base_url: http://api.test{fields}"), GITHUB % fields):
        with pytest.raises(PolicyError, match="insecure_http: true"):
            policy(text, 80)
    for text in (policy_text("base_url: http://a.test, insecure_http: true"),):
        assert policy(text, 80).services


@pytest.mark.parametrize("lines", [(), ASKED, (b"Upgrade-Insecure-Requests: 1",)])
@pytest.mark.parametrize("service", [b"api", b"keyed", b"basic", b"query", b"cookie"])
async def test_u16_the_gateway_does_not_rely_on_that(
    gateway: GatewayBench, service: bytes, lines: tuple[bytes, ...]
) -> None:
    """As if a policy had loaded that must not."""
    loaded = gateway.store.current.services[service.decode()]
    assert loaded.upstream is not None
    assert loaded.upstream.insecure_http
    object.__setattr__(loaded, "upstream", replace(loaded.upstream, insecure_http=False))
    for method in (b"GET", b"POST"):
        response = await gateway.call(method, b"/%b/x" % service, *lines)
        assert (response.status, response.error) == (502, "credential_refused")
    assert gateway.upstream.connections == 0
    assert not gateway.secrets.reads


@pytest.mark.parametrize("status", ["301 X", "302 X", "307 X", "308 X"])
async def test_u16_nobody_talks_a_tls_service_down_to_plain_http(
    gateway: GatewayBench, tls_authority: TestAuthority, status: str
) -> None:
    """Neither by a redirect nor by anything in the request."""
    context = tls_authority.certificate("localhost").context()
    async with recording_upstream(context) as secure, recording_upstream() as plain:
        gateway.upstream.port = secure.port
        where = f"base_url: https://localhost:PORT, ca_file: {tls_authority.ca_file}"
        gateway.load(policy_text(f"{where}, allow_private: true"))
        location = b"Location: http://localhost:%d/x" % plain.port
        secure.answer = reply(b"", status, location)
        lines = (b"X-Forwarded-Proto: http", b"Forwarded: proto=http", b"Front-End-Https: off")
        response = await gateway.call(b"GET", b"/api/x", *lines)
        assert response.one(b"location") == location[10:]
        assert secure.last.all(b"authorization") == [b"Bearer " + KEY.encode()]
        assert not secure.last.all(b"x-forwarded-proto")
        assert plain.connections == 0
        # Plain http spoken to a TLS port gets nothing, and the other way round.
        gateway.upstream.port = plain.port
        gateway.load(policy_text(f"{where}, allow_private: true, timeouts: {{connect: 300ms}}"))
        response = await gateway.call(b"GET", b"/api/x")
        assert response.error == "upstream_timeout"
        assert KEY.encode() not in plain.bytes_received
