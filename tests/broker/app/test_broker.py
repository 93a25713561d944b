"""The composition as a whole, within this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.app.broker import open_broker
from broker.app.home import Places, create_home, enrol_agent, open_keys
from broker.app.trail import trusted_keys
from broker.audit.verify import verify
from broker.cli.play import claims_of
from broker.errors import AuditUnavailable, ConfigurationError, PolicyError
from broker.files import read_private
from broker.identity.local import client_assertion
from broker.settings import Settings, VaultSettings
from providers.base import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from broker.app.broker import Broker

POLICY = """\
identity_sources: {local: {type: local}}
services:
  api:
    provider: http_api
    base_url: https://api.example.com
    credential: {type: bearer, secret: "embedded:api"}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
agents:
  bot: {trust: [{source: local, claims: {sub: bot}}], scopes: [api.read], max_ttl: 5m}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home", issuer="http://127.0.0.1:8700")
    create_home(settings)
    (settings.policies / "p.yaml").write_text(POLICY)
    return settings


async def ask(broker: Broker, method: str, path: str, **form: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=broker.control)
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
        return await client.request(method, path, data=form or None)


async def test_its_parts_work_together(settings: Settings) -> None:
    key = Secret(read_private(await enrol_agent(settings, "bot")))
    async with open_broker(settings) as broker:
        ready = (await ask(broker, "GET", "/readyz")).json()
        assert ready["status"] == "ok"
        assert {"policy", "audit", "storage", "identity"} <= set(ready["checks"])
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": client_assertion(key, "bot", settings.issuer),
            "scope": "api.read",
        }
        answer = await ask(broker, "POST", "/token", **form)
        assert answer.status_code == 200, answer.text
        claims = claims_of(answer.json()["access_token"])
        assert (claims["aud"], claims["scope"]) == (settings.gateway_url, "api.read")
        assert claims["exp"] - claims["iat"] == 300
        jwks = (await ask(broker, "GET", "/.well-known/jwks.json")).json()
        assert not any("d" in jwk for jwk in jwks["keys"])
        again = await ask(broker, "POST", "/token", **form)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_client")
    report = verify(Places(settings.home).audit, trusted_keys(open_keys(settings).audit))
    assert report.whole
    assert report.writers[0].closed


async def test_it_opens_again_where_it_was_closed(settings: Settings) -> None:
    for _ in range(2):
        async with open_broker(settings) as broker:
            assert (await ask(broker, "GET", "/healthz")).status_code == 200


async def test_a_bad_policy_leaves_nothing_open(settings: Settings) -> None:
    document = settings.policies / "p.yaml"
    document.write_text(POLICY.replace("GET", "GOT"))
    with pytest.raises(PolicyError):
        async with open_broker(settings):
            pass
    document.write_text(POLICY)
    async with open_broker(settings) as broker:
        assert (await ask(broker, "GET", "/healthz")).status_code == 200


async def test_one_trail_has_one_writer(settings: Settings) -> None:
    async with open_broker(settings):
        with pytest.raises((AuditUnavailable, ConfigurationError)):
            async with open_broker(settings):
                pass


async def test_the_keys_of_another_home_are_refused(settings: Settings, tmp_path: Path) -> None:
    other = Settings(tmp_path / "other")
    create_home(other)
    key = Places(settings.home).keys / "master.key"
    key.write_bytes((Places(other.home).keys / "master.key").read_bytes())
    with pytest.raises(ConfigurationError, match="wrong master key"):
        async with open_broker(settings):
            pass


async def test_a_vault_that_is_down_degrades(settings: Settings, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("hvs.test")
    vault = VaultSettings(address="http://127.0.0.1:1", token_file=token, timeout=1)
    async with open_broker(replace(settings, vault=vault)) as broker:
        ready = (await ask(broker, "GET", "/readyz")).json()
    assert ready["checks"]["vault"]["state"] in {"degraded", "failing"}
