"""C4: a wrong key or a corrupt page: the broker refuses to start, and says why."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.app.home import open_keys, open_store
from broker.errors import ConfigurationError
from broker.keys.sealing import MasterKey, master_key_file
from broker.model import PolicyChange, PolicyEdit
from broker.storage.sqlite import SqliteStorage
from tests.attacks.used_home import KEPT, used_home
from tests.fakes.admin_bench import STRIPE
from tests.integration.running_broker import BrokerHome

if TYPE_CHECKING:
    from pathlib import Path

    from broker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return used_home(tmp_path / "home")


def test_c4_another_master_key_is_refused_by_everything_it_should_open(
    settings: Settings,
) -> None:
    path = master_key_file(settings.home)
    path.write_bytes(base64.b64encode(b"\x01" * 32))
    with pytest.raises(ConfigurationError, match=r"signing.sealed: wrong master key: .*restore"):
        open_keys(settings)
    with pytest.raises(ConfigurationError, match=r"secrets.db: wrong master key: .*restore"):
        open_store(settings, MasterKey(b"\x01" * 32))


@pytest.mark.parametrize("name", ["signing.sealed", "audit.sealed"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "swapped"])
def test_c4_a_damaged_key_file_is_refused_with_its_name(
    settings: Settings, name: str, damage: str
) -> None:
    path = settings.home / "keys" / name
    content = path.read_bytes()
    other = {"signing.sealed": "audit.sealed", "audit.sealed": "signing.sealed"}[name]
    path.write_bytes(
        {
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "cut": content[:-20],
            "emptied": b"",
            "swapped": (path.parent / other).read_bytes(),
        }[damage]
    )
    with pytest.raises(ConfigurationError, match=rf"{name}: sealed text is (damaged|cut short)"):
        open_keys(settings)


@pytest.mark.parametrize("place", ["header", "page"])
@pytest.mark.parametrize("name", ["secrets", "database"])
def test_c4_a_damaged_database_is_refused_with_its_name(
    settings: Settings, name: str, place: str
) -> None:
    kept = KEPT[name]
    path = kept.path(settings.home)
    content = bytearray(path.read_bytes())
    start = 0 if place == "header" else 4096
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"{path.name}: the database is damaged .*backup"):
        kept.open(settings)


@pytest.mark.parametrize("name", ["signing.sealed", "secrets.db", "broker.db"])
def test_c4_broker_serve_ends_and_says_why(tmp_path: Path, name: str) -> None:
    home = BrokerHome.create(tmp_path / "broker" / "home")
    home.run("secret", "put", "stripe", stdin="one")
    (path,) = home.path.rglob(name)
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 64 + content[64:])
    with pytest.raises(RuntimeError, match=rf"broker serve failed:\n.*{name}: ") as caught:
        home.run("serve")
    assert "Traceback" not in str(caught.value)


def test_c4_broker_serve_does_not_start_with_another_master_key(tmp_path: Path) -> None:
    home = BrokerHome.create(tmp_path / "broker" / "home")
    (home.path / "keys" / "master.key").write_bytes(base64.b64encode(b"\x02" * 32))
    with pytest.raises(RuntimeError, match="wrong master key"):
        home.run("serve")


def test_c4_a_policy_that_was_edited_in_the_database_is_not_served(tmp_path: Path) -> None:
    home = BrokerHome.create(tmp_path / "broker" / "home")
    database = home.path / "data" / "broker.db"
    kept = PolicyEdit("services", "stripe", json.dumps(STRIPE))

    async def keep() -> None:
        storage = SqliteStorage(database)
        await storage.policies.commit(PolicyChange(0, "admin:a", None, (kept,)), 0)
        await storage.close()

    asyncio.run(keep())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TRIGGER policy_versions_are_not_edited")
        connection.execute(
            "UPDATE policy_versions SET edits = replace(edits, 'stripe.com', 'evil')"
        )
    told = "version 1 of the policy is not what was stored"
    with pytest.raises(
        RuntimeError, match=rf"broker serve failed:\n.*{told}.*restore a backup"
    ) as e:
        home.run("serve")
    assert "Traceback" not in str(e.value)
    with pytest.raises(RuntimeError, match=told):
        home.run("policy", "check")
    records = [json.loads(line) for line in home.run("logs", "--json").splitlines()]
    (refused,) = [one for one in records if one["action"] == "policy.load"]
    assert refused["decision"] == "deny"
    assert told in refused["detail"]
