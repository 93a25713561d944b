from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from broker.app.authority import Authority
from broker.app.home import create_home, open_keys
from broker.errors import InvalidToken
from broker.grants import Grants
from broker.model import Grant
from broker.reload import PolicyStore
from broker.settings import Settings
from broker.tokens import TaskTokens
from providers.base import Dependencies, Injection, ProviderError, Secret

if TYPE_CHECKING:
    from pathlib import Path

    from broker.leases.order import Order
    from broker.policy.engine import Policy

POLICY = """\
identity_sources: {local: {type: local}}
services:
  api:
    provider: http_api
    base_url: https://api.example.com
    credential: {type: bearer, secret: "embedded:KEY"}
  hub: {provider: github_app, app_id: 1, private_key: "embedded:PEM", installation: acme}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
  hub.read:
    service: hub
    allow: ["GET /**"]
    repositories: ["{agent}s-own"]
    permissions: {contents: read}
agents:
  bot: {trust: [{source: local}], scopes: [api.read, hub.read]}
"""
NOW, DAY = int(time.time()), 86400
# For longer than a test run may take until it comes to what uses it.
GRANT = Grant("jti", "bot", "local", "bot", ("api.read",), NOW, NOW + DAY, "v", "bot")


class EchoedSecrets:
    """Secrets whose value is their reference."""

    async def read(self, reference: str) -> Secret:
        return Secret(reference.encode())


class RecordingProxied:
    """What mints for the gateway, and is asked for it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Order, str]] = []

    async def injection(self, order: Order, policy_version: str) -> Injection:
        self.asked.append((order, policy_version))
        return Injection(headers=((b"X-Key", Secret(b"minted")),))


class Setting:
    """An authority, and what a test changes around it."""

    def __init__(self, home: Path) -> None:
        settings = Settings(home)
        create_home(settings)
        self.document = settings.policies / "p.yaml"
        self.document.write_text(POLICY)
        self.store = PolicyStore(settings.policies)
        self.tokens = TaskTokens(open_keys(settings).signing, "http://issuer", "http://gateway")
        grants = Grants(self.tokens, lambda: self.store.current)
        grants.learn(())
        dependencies = Dependencies(EchoedSecrets(), lambda: None, time.time)
        self.proxied = RecordingProxied()
        self.authority = Authority(self.store, grants, dependencies, self.proxied)  # type: ignore[arg-type]

    def token(self, scopes: tuple[str, ...] = ("api.read",)) -> bytes:
        """A task token of the agent `bot`."""
        now = int(time.time())
        version = self.store.current.version
        grant = Grant("jti", "bot", "local", "bot", scopes, now, now + 60, version, "bot")
        return self.tokens.issue(grant).encode()

    async def injected(self, policy: Policy, name: str = "api") -> bytes:
        """What goes into a request to a service that was judged by this policy."""
        injection = await self.authority.injection(
            policy, policy.services[name], f"{name}.read", GRANT
        )
        return injection.headers[0][1].reveal()


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "home")


def test_a_task_token_has_its_grant(setting: Setting) -> None:
    token = setting.token()
    grant = setting.authority.grant(token, sha256(token).digest())
    assert isinstance(grant, Grant)
    assert grant.scopes == ("api.read",)
    assert setting.authority.parent(setting.token()).agent == "bot"


@pytest.mark.parametrize("token", [b"", b"a.b.c", b"\xff"])
def test_what_is_none_has_a_word_for_why(setting: Setting, token: bytes) -> None:
    assert setting.authority.grant(token, sha256(token).digest()) == "malformed"
    with pytest.raises(InvalidToken):
        setting.authority.parent(token)


def test_the_policy_is_the_one_in_force(setting: Setting) -> None:
    before = setting.authority.policy()
    setting.document.write_text(POLICY.replace("GET", "POST"))
    setting.store.reload()
    assert setting.authority.policy() is not before


async def test_p9_a_credential_is_that_of_the_snapshot_which_judged(setting: Setting) -> None:
    old = setting.store.current
    setting.document.write_text(POLICY.replace("KEY", "NEW"))
    setting.store.reload()
    new = setting.store.current
    for policy, expected in ((old, b"KEY"), (new, b"NEW"), (old, b"KEY")):
        assert await setting.injected(policy) == b"Bearer embedded:" + expected


async def test_what_is_minted_is_minted_with_a_lease(setting: Setting) -> None:
    policy = setting.store.current
    assert await setting.injected(policy, "hub") == b"minted"
    ((order, version),) = setting.proxied.asked
    assert (order.grant, order.scope, order.delivery, version) == (
        GRANT,
        "hub.read",
        "proxy",
        policy.version,
    )
    assert order.service is policy.services["hub"]
    assert order.constraints.repositories == ("bots-own",)
    assert 0 < order.lifetime <= DAY
    assert await setting.injected(policy, "api") == b"Bearer embedded:KEY"
    assert len(setting.proxied.asked) == 1


async def test_constraints_that_cannot_be_filled_in_are_a_refusal(setting: Setting) -> None:
    policy = setting.store.current
    grant = replace(GRANT, agent="bot*")
    with pytest.raises(ProviderError, match=r"hub\.read"):
        await setting.authority.injection(policy, policy.services["hub"], "hub.read", grant)
    assert setting.proxied.asked == []
