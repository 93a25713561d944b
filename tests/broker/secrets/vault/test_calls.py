from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.files import create_private
from broker.secrets.vault import VaultBackend
from broker.settings import VaultSettings
from providers.base import ProviderError, Secret
from tests.fakes.vault import answer, fake_vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.openbao import OpenBao


def _settings(address: str, token: str, directory: Path) -> VaultSettings:
    create_private(directory / "token", token.encode())
    return VaultSettings(address=address, token_file=directory / "token")


@pytest.fixture
async def vault(openbao: OpenBao, tmp_path: Path) -> AsyncIterator[VaultBackend]:
    policy = openbao.policy('path "auth/token/create-orphan" { capabilities = ["update"] }')
    token = openbao.admin.auth.token.create(policies=[policy], ttl="10m")["auth"]["client_token"]
    backend = VaultBackend(_settings(openbao.address, token, tmp_path))
    yield backend
    await backend.close()


async def test_calls_are_the_brokers_own_or_another_tokens(vault: VaultBackend) -> None:
    made = await vault.calls.call("POST", "auth/token/create-orphan", {"ttl": "60s"})
    token = Secret(made["auth"]["client_token"].encode())
    own = await vault.calls.call("GET", "auth/token/lookup-self")
    other = await vault.calls.call("GET", "auth/token/lookup-self", token=token)
    assert own["data"]["accessor"] != other["data"]["accessor"] == made["auth"]["accessor"]
    assert await vault.calls.call("POST", "auth/token/revoke-self", {}, token=token) == {}


async def test_a_refusal_says_which_call_and_what_to_do(vault: VaultBackend) -> None:
    with pytest.raises(ProviderError) as refusal:
        await vault.calls.call("POST", "auth/token/revoke-accessor", {"accessor": "x"})
    assert "POST auth/token/revoke-accessor (403)" in str(refusal.value)
    assert "give the broker's Vault policy the right to it" in str(refusal.value)
    assert (refusal.value.code, refusal.value.retryable) == ("403", False)


@pytest.mark.parametrize("path", ["", "/sys/health", "a//b", "a/../sys/seal", "a?b=c", "a b", "é"])
async def test_a_path_that_is_not_vaults_goes_nowhere(vault: VaultBackend, path: str) -> None:
    with pytest.raises(ProviderError, match="not one of Vault's"):
        await vault.calls.call("GET", path)


@pytest.mark.parametrize(("repeat", "requests"), [(True, 3), (False, 1)])
async def test_r2_a_call_is_repeated_unless_it_must_not_be(
    tmp_path: Path, *, repeat: bool, requests: int
) -> None:
    async with fake_vault(answer(429)) as fake:
        backend = VaultBackend(_settings(fake.address, "s.own", tmp_path))
        with pytest.raises(ProviderError) as refusal:
            await backend.calls.call("GET", "a/b", token=Secret(b"s.other"), repeat=repeat)
        await backend.close()
    assert refusal.value.retryable
    assert len(fake.requests) == requests
    assert all(b"s.other" in one and b"s.own" not in one for one in fake.requests)


async def test_a_login_that_has_died_is_renewed_once(openbao: OpenBao, tmp_path: Path) -> None:
    def token() -> str:
        made = openbao.admin.auth.token.create(policies=["default"], ttl="10m")
        text: str = made["auth"]["client_token"]
        return text

    first = token()
    backend = VaultBackend(_settings(openbao.address, first, tmp_path))
    await backend.calls.call("GET", "auth/token/lookup-self")
    openbao.admin.auth.token.revoke(first)
    (tmp_path / "token").write_text(token())
    assert await backend.calls.call("GET", "auth/token/lookup-self")
    await backend.close()


async def test_an_answer_that_is_not_vaults(tmp_path: Path) -> None:
    async with fake_vault(answer(200, ["hunter2"])) as fake:
        backend = VaultBackend(_settings(fake.address, "s.own", tmp_path))
        with pytest.raises(ProviderError, match="as Vault does") as refusal:
            await backend.calls.call("GET", "a/b", token=Secret(b"s.other"))
        await backend.close()
    assert "hunter2" not in str(refusal.value)
