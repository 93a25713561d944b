from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.app.backends import open_backends, open_vault, reference_check
from broker.app.home import create_home, open_keys
from broker.errors import ConfigurationError
from broker.secrets.reader import Secrets
from broker.settings import Settings, VaultSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home")
    create_home(settings)
    return settings


async def test_each_scheme_has_its_backend(settings: Settings, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    vault = VaultSettings(address="https://vault.example", token_file=token)
    with_vault = replace(settings, vault=vault)
    master = open_keys(settings).master
    backends = open_backends(with_vault, master, open_vault(with_vault))
    assert [backend.scheme for backend in backends] == ["embedded", "env", "file", "vault"]
    await Secrets(backends).close()


async def test_without_an_address_there_is_no_vault(settings: Settings) -> None:
    assert open_vault(settings) is None
    backends = open_backends(settings, open_keys(settings).master, None)
    assert "vault" not in {backend.scheme for backend in backends}
    await Secrets(backends).close()


def test_a_reference_to_a_vault_needs_one(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"table \[vault\]"):
        reference_check(settings)("vault:kv/stripe#key")
    with_vault = replace(settings, vault=VaultSettings(address="https://vault.example"))
    reference_check(with_vault)("vault:kv/stripe#key")


def test_the_form_within_a_scheme_is_judged_too(settings: Settings) -> None:
    def exact(reference: str) -> None:
        raise ConfigurationError(f"judged after {reference.partition(':')[0]}")

    check = reference_check(settings, exact)
    with pytest.raises(ConfigurationError, match="judged after embedded"):
        check("embedded:stripe")
    with pytest.raises(ConfigurationError, match="not a secret reference"):
        check("sk_live_0123456789")
