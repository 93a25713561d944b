from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.storage.commits import Commits
from broker.storage.schema import open_database
from broker.storage.sqlite import SqliteStorage
from tests.contracts.revocations import order

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a %23 strange?name.db"


def _write(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO replay_claims VALUES (?, 0)", (b"%d" % number,))


def test_each_commit_changes_the_number_and_nothing_else_does(path: Path) -> None:
    with closing(open_database(path)) as one, closing(open_database(path)) as other:
        with closing(Commits(path)) as commits:
            seen = [commits.latest()]
            for number, connection in enumerate((one, other, one, one)):
                connection.execute("BEGIN IMMEDIATE")
                _write(connection, number)
                assert commits.latest() == seen[-1]  # nothing is committed yet
                connection.execute("COMMIT")
                assert commits.latest() not in seen
                seen.append(commits.latest())
                assert commits.latest() == seen[-1]
            one.execute("BEGIN IMMEDIATE")
            _write(one, 9)
            one.execute("ROLLBACK")
            assert commits.latest() == seen[-1]
        assert commits.latest() is None  # closed


def test_it_holds_up_no_checkpoint(path: Path) -> None:
    with closing(open_database(path)) as connection, closing(Commits(path)) as commits:
        commits.latest()
        _write(connection, 1)
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_it_waits_for_nobody(path: Path) -> None:
    open_database(path).close()
    with closing(Commits(path)) as commits, closing(sqlite3.connect(path)) as hog:
        hog.execute("PRAGMA locking_mode = EXCLUSIVE")
        hog.execute("BEGIN EXCLUSIVE")
        assert commits.latest() is None


async def test_where_that_cannot_be_told_the_store_is_asked_each_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(path).close()
    with monkeypatch.context() as patched:
        patched.setattr("broker.storage.sqlite.Commits.latest", lambda _: None)
        store, other = SqliteStorage(path), SqliteStorage(path)
        assert await store.revocations.since(0) == ()
        ended = await other.revocations.add(order("grant", "x"))
        assert await store.revocations.since(0) == (ended.revocation,)
        assert await store.policies.number() == 0
        await store.close()
        await other.close()


def test_without_a_connection_of_its_own_it_cannot_tell(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    open_database(path).close()
    monkeypatch.setattr(sqlite3, "connect", refuse)
    with closing(Commits(path)) as commits:
        assert commits.latest() is None


async def test_what_is_new_is_asked_for_only_after_a_commit(path: Path) -> None:
    store, other = SqliteStorage(path), SqliteStorage(path)
    ended = await store.revocations.add(order("grant", "x"))
    last = ended.revocation.number
    assert await store.revocations.since(0) == (ended.revocation,)
    assert await store.revocations.since(last) == ()
    assert await store.policies.number() == 0
    asked: list[str] = []
    store._committer._connection.set_trace_callback(asked.append)
    for _ in range(3):
        assert await store.revocations.since(last) == ()
        assert await store.policies.number() == 0
    assert asked == []
    more = await other.revocations.add(order("grant", "y"))
    assert await store.revocations.since(last) == (more.revocation,)
    assert await store.revocations.since(last) == (more.revocation,)
    assert asked != []
    await store.close()
    await other.close()
