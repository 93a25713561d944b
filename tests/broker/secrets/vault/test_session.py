from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hvac.exceptions import Forbidden, InvalidPath

from broker.errors import SecretUnavailable
from broker.files import create_private, replace_private
from broker.secrets.vault import VaultBackend
from broker.secrets.vault.client import VaultConnection
from broker.secrets.vault.login import login_from
from broker.secrets.vault.session import LOGIN_PAUSE, VaultSession
from broker.settings import VaultSettings
from tests.fakes.vault import answer, fake_vault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.components.openbao import OpenBao


class Setting:
    """A secret in OpenBao, and a role whose tokens may read it."""

    def __init__(self, bao: OpenBao, directory: Path) -> None:
        self.bao = bao
        self.mount = bao.kv()
        bao.put(self.mount, "a", key="value")
        self.policy = bao.policy(f'path "{self.mount}/*" {{ capabilities = ["read"] }}')
        self.settings = VaultSettings(
            address=bao.address,
            login="approle",
            role_id_file=directory / "role-id",
            secret_id_file=directory / "secret-id",
        )

    def role(self, *, ttl: str, max_ttl: str = "1h", uses: int = 0) -> None:
        """Deliver what a login as a new role needs; 0 uses are any number."""
        self.bao.approle(self.policy)  # mounts the auth method
        name = f"{self.mount}-{ttl}"
        auth = self.bao.admin.auth.approle
        auth.create_or_update_approle(
            name,
            token_policies=[self.policy],
            token_ttl=ttl,
            token_max_ttl=max_ttl,
            secret_id_num_uses=uses,
        )
        secret_id = auth.generate_secret_id(name)["data"]["secret_id"]
        role_id = auth.read_role_id(name)["data"]["role_id"]
        assert self.settings.role_id_file is not None
        assert self.settings.secret_id_file is not None
        replace_private(self.settings.role_id_file, role_id.encode())
        replace_private(self.settings.secret_id_file, secret_id.encode())

    async def read(self, backend: VaultBackend) -> bytes:
        return (await backend.read(f"{self.mount}/a#key")).secret.reveal()

    def is_alive(self, token: str) -> bool:
        try:
            self.bao.admin.auth.token.lookup(token)
        except (Forbidden, InvalidPath):
            return False
        return True


@pytest.fixture
def setting(openbao: OpenBao, tmp_path: Path) -> Setting:
    return Setting(openbao, tmp_path)


def token_of(backend: VaultBackend) -> str:
    live = backend._session._live
    assert live is not None
    return live.token.secret.reveal().decode()


async def test_the_token_is_renewed_before_it_expires(setting: Setting) -> None:
    setting.role(ttl="6s", uses=1)  # a second login is impossible
    backend = VaultBackend(setting.settings)
    assert await setting.read(backend) == b"value"
    token = token_of(backend)
    await asyncio.sleep(7)
    assert await setting.read(backend) == b"value"
    assert token_of(backend) == token
    await backend.close()


async def test_at_the_end_of_its_life_a_token_is_replaced_before_anybody_waits(
    setting: Setting,
) -> None:
    setting.role(ttl="5s", max_ttl="5s")
    backend = VaultBackend(setting.settings)
    await backend.start()
    token = token_of(backend)
    async with asyncio.timeout(30):
        while token_of(backend) == token:  # noqa: ASYNC110 - nobody asks for it meanwhile
            await asyncio.sleep(0.05)
    assert await setting.read(backend) == b"value"
    await backend.close()


async def test_a_token_that_dies_is_replaced_at_once(setting: Setting) -> None:
    setting.role(ttl="10m")
    backend = VaultBackend(setting.settings)
    await backend.start()
    token = token_of(backend)
    setting.bao.admin.auth.token.revoke(token)
    assert await asyncio.gather(*(setting.read(backend) for _ in range(5))) == [b"value"] * 5
    assert token_of(backend) != token
    await backend.close()


async def test_a_token_that_lives_is_kept_when_one_path_is_forbidden(setting: Setting) -> None:
    setting.role(ttl="10m")
    backend = VaultBackend(setting.settings)
    await backend.start()
    token = token_of(backend)
    with pytest.raises(SecretUnavailable, match=r"\(403\)"):
        await backend.read("elsewhere/a#key")
    assert token_of(backend) == token
    await backend.close()


async def test_a_login_that_fails_is_not_repeated_for_every_reader(setting: Setting) -> None:
    setting.role(ttl="10m", uses=1)
    backend = VaultBackend(setting.settings)
    await backend.start()
    setting.bao.admin.auth.token.revoke(token_of(backend))
    for _ in range(3):
        with pytest.raises(SecretUnavailable, match="secret_id has been used up"):
            await setting.read(backend)
    setting.role(ttl="10m")
    with pytest.raises(SecretUnavailable, match="secret_id has been used up"):
        await setting.read(backend)
    await asyncio.sleep(LOGIN_PAUSE)
    assert await setting.read(backend) == b"value"
    await backend.close()


async def test_a_sealed_vault_does_not_end_the_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker.secrets.vault.session.RENEW_AT", 0.01)
    monkeypatch.setattr("broker.secrets.vault.session._LONGEST_PAUSE", 0.1)
    create_private(tmp_path / "token", b"hvs.x")
    logged_in = answer(200, {"data": {"ttl": 60, "renewable": True}})
    renewed = answer(200, {"auth": {"lease_duration": 3600}})
    down = [answer(503)] * 6  # three attempts to renew, three to log in
    async with fake_vault(logged_in, *down, renewed) as vault:
        settings = VaultSettings(address=vault.address, token_file=tmp_path / "token")
        connection = VaultConnection(settings)
        session = VaultSession(connection, login_from(settings))
        client = await session.client()
        while len(vault.requests) < 8:
            assert await session.client() is client
            await asyncio.sleep(0.02)
        await session.close()
        await connection.close()
    assert "login to Vault could not be prolonged" in caplog.text


async def test_closing_ends_the_token_that_a_login_got(setting: Setting) -> None:
    setting.role(ttl="10m")
    backend = VaultBackend(setting.settings)
    await backend.start()
    token = token_of(backend)
    assert setting.is_alive(token)
    await backend.close()
    assert not setting.is_alive(token)


async def test_closing_leaves_the_token_of_a_file_alive(setting: Setting, tmp_path: Path) -> None:
    issued = setting.bao.admin.auth.token.create(policies=[setting.policy], ttl="5m")
    token = issued["auth"]["client_token"]
    create_private(tmp_path / "token", token.encode())
    settings = VaultSettings(address=setting.bao.address, token_file=tmp_path / "token")
    backend = VaultBackend(settings)
    assert await setting.read(backend) == b"value"
    await backend.close()
    assert setting.is_alive(token)


async def test_readers_that_come_together_log_in_once(tmp_path: Path) -> None:
    create_private(tmp_path / "token", b"hvs.x")
    async with fake_vault(answer(200, {"data": {"ttl": 0, "renewable": False}})) as vault:
        settings = VaultSettings(address=vault.address, token_file=tmp_path / "token")
        connection = VaultConnection(settings)
        session = VaultSession(connection, login_from(settings))
        clients = await asyncio.gather(*(session.client() for _ in range(10)))
        assert len({id(client) for client in clients}) == 1
        await session.close()
        await connection.close()
    assert len(vault.requests) == 1
