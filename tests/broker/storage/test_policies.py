from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from broker.errors import ConfigurationError, StorageError
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
