from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from broker.errors import ConfigurationError, StorageError
from broker.storage.base import ReplayClaim
from broker.storage.policies import read_kept
from broker.storage.sqlite import SqliteStorage
from tests.contracts.policies import PolicyHistoryContract, commit, edit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.contracts.storage import OpenStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest_asyncio.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    stores: list[SqliteStorage] = []

    def open_once_more() -> SqliteStorage:
        stores.append(SqliteStorage(path))
        return stores[-1]

    yield open_once_more
    for store in stores:
        await store.close()


@pytest.fixture
def store(open_store: OpenStore) -> object:
    return open_store()


class TestSqlitePolicies(PolicyHistoryContract):
    """The contract, on SQLite."""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE policy_versions SET made_by = 'nobody'",
        "DELETE FROM policy_versions",
    ],
)
async def test_versions_are_neither_edited_nor_removed(path: Path, statement: str) -> None:
    store = SqliteStorage(path)
    await commit(store, edit("a", {"x": 1}))
    with (
        closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="never"),
    ):
        connection.execute(statement)
    assert len(await store.policies.versions(None, 10)) == 1
    await store.close()


@pytest.mark.parametrize("edits", ['[["scopes","a",null]]', "not json", "[1]"])
async def test_a_version_that_was_tampered_with_is_noticed(path: Path, edits: str) -> None:
    store = SqliteStorage(path)
    await commit(store, edit("a", {"x": 1}))
    await commit(store, edit("b", {"x": 1}))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER policy_versions_are_not_edited")
        connection.execute("UPDATE policy_versions SET edits = ? WHERE number = 1", (edits,))
    for look in (store.policies.versions(None, 10), store.policies.kept(1)):
        with pytest.raises(StorageError, match="version 1 of the policy is not what was stored"):
            await look
    await store.close()


@dataclass(frozen=True)
class Forger:
    """Whoever can write the database, and does not mind the triggers."""

    path: Path

    def write(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for name in ("edited", "deleted"):
                connection.execute(f"DROP TRIGGER IF EXISTS policy_versions_are_not_{name}")
            connection.execute(statement, values)

    def rewrite(self, number: int, body: str, *, previous: str | None = None) -> str:
        """Have a version say something else, with a digest that fits it; return the digest."""
        edits = json.dumps([["scopes", "a", body]], separators=(",", ":"))
        with closing(sqlite3.connect(self.path)) as connection:
            at, by, comment, before = connection.execute(
                "SELECT made_at, made_by, comment, previous FROM policy_versions WHERE number = ?",
                (number,),
            ).fetchone()
        content = [number, at, by, comment, edits, before if previous is None else previous]
        digest = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
        self.write(
            "UPDATE policy_versions SET edits = ?, previous = ?, digest = ? WHERE number = ?",
            *(edits, content[-1], digest, number),
        )
        return digest


@pytest.fixture
async def forger(path: Path) -> Forger:
    store = SqliteStorage(path)
    for number in (1, 2, 3):
        await commit(store, edit("a", {"x": number}))
    await store.close()
    return Forger(path)


async def _refused(path: Path) -> str:
    """Return why the policy is not read: neither by a broker that starts, nor by commands."""
    store = SqliteStorage(path)
    with pytest.raises(StorageError) as refusal:
        await store.policies.kept()
    await store.close()
    with pytest.raises(StorageError) as of_commands:
        read_kept(path)
    assert str(of_commands.value) == str(refusal.value)
    assert "compare it with the audit trail" in str(refusal.value)
    assert "restore a backup" in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("edits", '[["scopes","a","{\\"x\\":9}"]]'),
        ("made_by", "user:nobody"),
        ("made_at", 1.0),
        ("comment", "a better reason"),
        ("previous", "0" * 64),
        ("digest", "0" * 64),
    ],
)
async def test_a_policy_is_not_read_once_a_version_says_something_else(
    path: Path, forger: Forger, number: int, column: str, value: object
) -> None:
    forger.write(f"UPDATE policy_versions SET {column} = ? WHERE number = ?", value, number)  # noqa: S608 - constants
    assert f"version {number} of the policy is not what was stored" in await _refused(path)


async def test_a_policy_is_not_read_once_a_version_was_written_anew(
    path: Path, forger: Forger
) -> None:
    forger.rewrite(2, "{}")
    assert "version 3 of the policy does not follow version 2" in await _refused(path)


async def test_a_policy_is_not_read_once_a_version_is_missing(path: Path, forger: Forger) -> None:
    forger.write("DELETE FROM policy_versions WHERE number = 2")
    assert "version 3 of the policy does not follow version 1" in await _refused(path)


async def test_a_policy_is_not_read_once_it_does_not_begin_at_the_beginning(
    path: Path, forger: Forger
) -> None:
    forger.write("DELETE FROM policy_versions WHERE number < 3")
    assert "version 3 of the policy does not follow the empty one" in await _refused(path)


@pytest.mark.parametrize("last", [0, 1, 2])
async def test_a_policy_is_not_read_once_its_last_versions_are_gone(
    path: Path, forger: Forger, last: int
) -> None:
    forger.write("DELETE FROM policy_versions WHERE number > ?", last)
    assert f"of 3 versions of the policy there are {last}" in await _refused(path)


async def test_a_history_that_is_another_one_is_not_followed_by_whoever_knows_the_first(
    path: Path, forger: Forger
) -> None:
    knows = SqliteStorage(path)
    assert (await knows.policies.kept()).number == 3
    forger.rewrite(3, "{}", previous=forger.rewrite(2, "{}"))
    for _ in range(2):
        with pytest.raises(
            StorageError, match=r"version 3 of the policy is .*not the one .*start the broker anew"
        ):
            await knows.policies.kept()
    fresh = SqliteStorage(path)
    await commit(fresh, edit("b", {}))
    with pytest.raises(StorageError, match="version 3 of the policy is gone, or not the one"):
        await knows.policies.kept()
    for store in (knows, fresh):
        await store.close()


async def test_a_refusal_keeps_no_snapshot_of_the_database_open(path: Path, forger: Forger) -> None:
    store, other = SqliteStorage(path), SqliteStorage(path)
    forger.rewrite(1, "{}")
    refusals = []
    for look in (store.policies.kept(), store.policies.kept(2), store.policies.versions(None, 9)):
        with pytest.raises(StorageError) as refusal:
            await look
        refusals.append(refusal)
        await other.spend(ReplayClaim("issuer", str(len(refusals)), 0))
        with closing(sqlite3.connect(path, timeout=0.2)) as connection:
            row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert row[0] == 0, "somebody still reads what was there before"
        forger.write("UPDATE policy_versions SET comment = 'another' WHERE number = 2")
    for one in (store, other):
        await one.close()


async def test_there_is_nothing_to_edit_beside_the_versions(path: Path, forger: Forger) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        forger.write("UPDATE policy_entries SET body = '{}'")
    store = SqliteStorage(path)
    (entry,) = (await store.policies.kept()).entries
    assert json.loads(entry.body) == {"x": 3}
    await store.close()


async def test_an_older_copy_of_the_whole_is_read_once_the_broker_starts_anew(path: Path) -> None:
    store = SqliteStorage(path)
    await commit(store, edit("a", {"x": 1}))
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(":memory:")) as copy:
        live.backup(copy)
        await commit(store, edit("a", {"x": 2}))
        assert (await store.policies.kept()).number == 2
        copy.backup(live)
    with pytest.raises(StorageError, match="version 2 of the policy is gone, or not the one"):
        await store.policies.kept()
    await store.close()
    store = SqliteStorage(path)
    assert (await store.policies.kept()).number == 1
    made = await commit(store, edit("a", {"x": 3}))
    (entry,) = (await store.policies.kept()).entries
    assert (made.number, json.loads(entry.body)) == (2, {"x": 3})
    await store.close()


async def test_history_cannot_be_made_shorter_to_be_made_another(
    path: Path, forger: Forger
) -> None:
    knows = SqliteStorage(path)
    assert (await knows.policies.kept()).number == 3
    forger.write("DELETE FROM policy_versions WHERE number > 1")
    forger.write("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'policy_versions'")
    forger.rewrite(1, "{}")
    with pytest.raises(StorageError, match="version 3 of the policy is gone, or not the one"):
        await knows.policies.kept()
    await knows.close()


async def test_commands_read_what_is_kept_without_a_store(path: Path) -> None:
    store = SqliteStorage(path)
    await commit(store, edit("a", {"x": 1}))
    assert read_kept(path) == await store.policies.kept()
    await store.close()


def test_a_damaged_database_is_told_to_commands(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(b"\0" * 8192)
    with pytest.raises(ConfigurationError, match="damaged"):
        read_kept(path)
