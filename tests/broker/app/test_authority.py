from __future__ import annotations

import time
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
from providers.base import CredentialRequest, Dependencies, Secret

if TYPE_CHECKING:
    from pathlib import Path

    from broker.model import Service

POLICY = """\
identity_sources: {local: {type: local}}
services:
  api:
    provider: http_api
    base_url: https://api.example.com
    credential: {type: bearer, secret: "embedded:KEY"}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
agents:
  bot: {trust: [{source: local}], scopes: [api.read]}
"""


class EchoedSecrets:
    """Secrets whose value is their reference."""

    async def read(self, reference: str) -> Secret:
        return Secret(reference.encode())


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
        self.authority = Authority(self.store, grants, dependencies)

    def token(self, scopes: tuple[str, ...] = ("api.read",)) -> bytes:
        """A task token of the agent `bot`."""
        now = int(time.time())
        version = self.store.current.version
        grant = Grant("jti", "bot", "local", "bot", scopes, now, now + 60, version, "bot")
        return self.tokens.issue(grant).encode()

    async def injected(self, service: Service) -> bytes:
        """What goes into a request that was judged by this service's snapshot."""
        request = CredentialRequest("api", "bot", "jti", "api.read", None, 60, None)
        injection = await self.authority.injector(service).injection(request)
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
    old = setting.store.current.services["api"]
    setting.document.write_text(POLICY.replace("KEY", "NEW"))
    setting.store.reload()
    new = setting.store.current.services["api"]
    for service, expected in ((old, b"KEY"), (new, b"NEW"), (old, b"KEY")):
        assert await setting.injected(service) == b"Bearer embedded:" + expected


def test_a_provider_is_built_once_a_policy(setting: Setting) -> None:
    service = setting.store.current.services["api"]
    assert setting.authority.injector(service) is setting.authority.injector(service)
