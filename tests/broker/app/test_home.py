from __future__ import annotations

import asyncio
import base64
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.app.home import (
    Places,
    create_home,
    enrol_agent,
    open_keys,
    open_storage,
    open_store,
)
from broker.errors import ConfigurationError
from broker.settings import Settings
from providers.base import Secret

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home")
    create_home(settings)
    return settings


def test_creating_says_what_was_made_and_a_second_time_nothing(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    places = Places(settings.home)
    made = create_home(settings)
    assert {places.home, places.signing_keys, places.audit_keys, places.policies} <= set(made)
    assert create_home(settings) == ()


def test_keys_open_again_and_are_the_same(settings: Settings) -> None:
    first, second = open_keys(settings), open_keys(settings)
    assert first.signing.public_jwks() == second.signing.public_jwks()
    assert first.signing.public_jwks() != first.audit.public_jwks()


def test_a_home_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no broker here.*broker init"):
        open_keys(Settings(tmp_path / "nothing"))


def test_the_wrong_master_key_is_told_from_damage(settings: Settings) -> None:
    places = Places(settings.home)
    other = base64.b64encode(bytes(32)) + b"\n"
    (places.keys / "master.key").write_bytes(other)
    with pytest.raises(ConfigurationError, match=r"signing\.sealed: wrong master key"):
        open_keys(settings)
    with pytest.raises(ConfigurationError, match="wrong master key"):
        create_home(settings)


@pytest.mark.parametrize("name", ["master.key", "signing.sealed", "audit.sealed"])
def test_a_key_that_others_can_read_is_refused(settings: Settings, name: str) -> None:
    path = Places(settings.home).keys / name
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        open_keys(settings)


def test_the_signing_keys_do_not_pass_for_those_of_the_trail(settings: Settings) -> None:
    places = Places(settings.home)
    places.audit_keys.write_bytes(places.signing_keys.read_bytes())
    with pytest.raises(ConfigurationError, match=r"audit\.sealed"):
        open_keys(settings)


def test_a_lost_master_key_is_not_replaced_while_something_is_sealed(settings: Settings) -> None:
    (Places(settings.home).keys / "master.key").unlink()
    with pytest.raises(ConfigurationError, match="there is no master key"):
        create_home(settings)


def test_a_lost_master_key_is_not_replaced_while_secrets_are_stored(settings: Settings) -> None:
    places = Places(settings.home)
    open_store(settings, open_keys(settings).master).close()
    for path in list(places.keys.iterdir()):
        path.unlink()
    with pytest.raises(ConfigurationError, match="there is no master key"):
        create_home(settings)


async def test_enrolling_keeps_the_public_key_and_hands_out_the_private_one(
    settings: Settings,
) -> None:
    path = await enrol_agent(settings, "laptop")
    assert path == Places(settings.home).agent_key("laptop")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    storage = open_storage(settings)
    (key,) = await storage.enrolled_keys()
    await storage.close()
    assert key.agent == "laptop"
    assert "d" not in key.public_jwk
    with pytest.raises(ConfigurationError, match="not overwritten"):
        await enrol_agent(settings, "laptop")


async def test_a_private_key_that_no_broker_knows_is_not_left(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("broker.storage.sqlite.SqliteStorage.enrol", broken)
    with pytest.raises(OSError, match="disk full"):
        await enrol_agent(settings, "laptop")
    assert not Places(settings.home).agent_key("laptop").exists()


def test_what_is_stored_can_be_read_with_the_same_master_key(settings: Settings) -> None:
    store = open_store(settings, open_keys(settings).master)
    store.put("stripe", Secret(b"k"))
    store.close()
    again = open_store(settings, open_keys(settings).master)
    assert again.read("stripe").secret == Secret(b"k")
    again.close()


def test_a_master_key_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_MASTER_KEY", base64.b64encode(bytes(range(32))).decode())
    settings = replace(Settings(tmp_path / "home"), master_key_source="environment")
    create_home(settings)
    assert not (settings.home / "keys/master.key").exists()
    assert asyncio.run(enrol_agent(settings, "laptop")).exists()
    open_keys(settings)
