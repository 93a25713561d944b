from __future__ import annotations

import asyncio
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from broker.errors import StorageError
from broker.storage.committer import Committer
from broker.storage.schema import open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Operation = Callable[[sqlite3.Connection], int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
async def committer(path: Path) -> AsyncIterator[Committer]:
    committer = Committer(open_database(path), path)
    yield committer
    await committer.close()


def _claim(number: int) -> Operation:
    def insert(connection: sqlite3.Connection) -> int:
        digest = number.to_bytes(4, "big") * 500
        return connection.execute("INSERT INTO replay_claims VALUES (?, 0)", (digest,)).rowcount

    return insert


def _count(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM replay_claims").fetchone()
    return int(count)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    yield
    blocker.execute("ROLLBACK")
    blocker.close()


async def test_operations_that_wait_share_a_commit(committer: Committer, path: Path) -> None:
    statements: list[str] = []
    committer._connection.set_trace_callback(statements.append)
    with _locked(path):  # the first batch waits here, and the others gather
        saves = [asyncio.ensure_future(committer.run(_claim(n), writes=True)) for n in range(100)]
        await asyncio.sleep(0.1)
    assert await asyncio.gather(*saves) == [1] * 100
    assert statements.count("COMMIT") <= 3


async def test_one_that_fails_takes_nothing_of_its_neighbours(
    committer: Committer, path: Path
) -> None:
    def broken(connection: sqlite3.Connection) -> int:
        _claim(7)(connection)
        raise ValueError("after it has written")

    with _locked(path):
        jobs = [
            asyncio.ensure_future(committer.run(operation, writes=True))
            for operation in (_claim(1), broken, _claim(1), _claim(2))
        ]
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert outcomes[0] == outcomes[3] == 1
    assert isinstance(outcomes[1], ValueError)
    assert isinstance(outcomes[2], StorageError)
    assert await committer.run(_count) == 2


async def test_a_full_disk_is_an_error_and_passes(committer: Committer) -> None:
    connection = committer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    outcomes = await asyncio.gather(
        *(committer.run(_claim(n), writes=True) for n in range(50)), return_exceptions=True
    )
    failures = [outcome for outcome in outcomes if outcome != 1]
    assert {type(failure) for failure in failures} == {StorageError}
    assert all("full" in str(failure) for failure in failures)
    assert "full" in str(committer.unwritable)
    assert await committer.run(_count) == len(outcomes) - len(failures)
    connection.execute("PRAGMA max_page_count = 1073741823")
    assert await committer.run(_claim(99), writes=True) == 1
    assert committer.unwritable is None


async def test_a_lock_that_is_never_released_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.sqlite.BUSY_TIMEOUT", 0.1)
    committer = Committer(open_database(path), path)
    with _locked(path):
        with pytest.raises(StorageError, match="another process has kept the database locked"):
            await committer.run(_claim(1), writes=True)
        assert await committer.run(_count) == 0  # readers do not wait for writers
    assert await committer.run(_claim(1), writes=True) == 1
    await committer.close()


async def test_it_knows_whether_the_last_write_failed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.sqlite.BUSY_TIMEOUT", 0.1)
    committer = Committer(open_database(path), path)
    with _locked(path):
        with pytest.raises(StorageError):
            await committer.run(_claim(1), writes=True)
        assert "locked" in str(committer.unwritable)
        await committer.run(_count)
        assert "locked" in str(committer.unwritable)  # a read says nothing of that
    await committer.run(_claim(1), writes=True)
    assert committer.unwritable is None
    with pytest.raises(StorageError):
        await committer.run(_claim(1), writes=True)
    assert committer.unwritable is None  # there is one already: the operation's own fault
    await committer.close()


async def test_a_queue_that_is_too_long_is_refused(
    committer: Committer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.storage.committer._LONGEST_QUEUE", 10)
    with _locked(path):
        jobs = [asyncio.ensure_future(committer.run(_claim(n), writes=True)) for n in range(100)]
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StorageError)]
    assert refused
    assert all("waiting already" in str(refusal) for refusal in refused)
    assert await committer.run(_count) == 100 - len(refused)


async def test_a_caller_that_gives_up_harms_nobody(committer: Committer, path: Path) -> None:
    with _locked(path):
        given_up = asyncio.ensure_future(committer.run(_claim(1), writes=True))
        other = asyncio.ensure_future(committer.run(_claim(2), writes=True))
        await asyncio.sleep(0.05)
        given_up.cancel()
    assert await other == 1
    assert await committer.run(_count) == 2


def test_a_loop_that_is_gone_harms_nobody(path: Path) -> None:
    committer = Committer(open_database(path), path)

    async def abandon() -> None:
        waiting = asyncio.ensure_future(committer.run(_claim(1), writes=True))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(abandon())
    assert asyncio.run(committer.run(_count)) == 1
    asyncio.run(committer.close())


async def test_after_closing_nothing_is_taken(committer: Committer) -> None:
    await committer.close()
    with pytest.raises(StorageError, match="closed"):
        await committer.run(_count)
    with pytest.raises(sqlite3.ProgrammingError):
        committer._connection.execute("SELECT 1")
