from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute

from broker.errors import ConfigurationError, LimitsUnavailable, StorageError
from broker.limits.base import Ticket
from broker.limits.local import LocalCounts, RingStorage
from broker.limits.memory import MemoryStorage
from broker.limits.quota import Cap, Quota
from broker.storage.sqlite import SqliteStorage
from tests.contracts.counts import (
    UNTIL,
    OpenCounts,
    SharedCountsContract,
    burst,
    passed,
    place,
    rate,
    rated,
    refused,
    settled,
    taken,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "broker.db")
    yield storage
    await storage.close()


class TestLocalCounts(SharedCountsContract):
    @pytest.fixture
    async def open_counts(
        self, tmp_path: Path, storage: SqliteStorage
    ) -> AsyncIterator[OpenCounts]:
        opened: list[LocalCounts] = []

        async def open_one() -> LocalCounts:
            opened.append(LocalCounts(tmp_path / "limits.db", storage.totals))
            return opened[-1]

        yield open_one
        for one in opened:
            await one.close()


async def test_the_places_of_a_process_that_died_are_free_after_a_while(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    now = 100.0
    dead, alive = (
        LocalCounts(tmp_path / "limits.db", storage.totals, clock=lambda: now) for _ in range(2)
    )
    quota = place(2)
    assert len(passed(await burst(dead, quota, 3))) == 2
    now += 14
    assert refused(await taken(alive, quota)).kind == "concurrent"
    now += 2
    assert len(passed(await burst(alive, quota, 3))) == 2
    await alive.close()
    await dead.close()


async def test_the_places_of_a_process_that_lives_are_kept(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    keeper, other = (
        LocalCounts(tmp_path / "limits.db", storage.totals, held_for=1.8) for _ in range(2)
    )
    quota = place(1)
    keeping = asyncio.create_task(keeper.keep())
    held = await taken(keeper, quota)
    assert isinstance(held, Ticket)
    for _ in range(10):
        await asyncio.sleep(0.25)
        assert refused(await taken(other, quota)).kind == "concurrent"
    keeper.give_back(held)
    await settled(other, quota)
    keeping.cancel()
    await keeper.close()
    await other.close()


async def test_what_is_from_before_the_machine_was_started_anew_is_dropped(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    now = 90_000.0
    before = LocalCounts(tmp_path / "limits.db", storage.totals, clock=lambda: now)
    rates, places = rated(rate(RateLimitItemPerMinute(1))), place(1)
    assert isinstance(await taken(before, rates), Ticket)
    assert isinstance(await taken(before, places), Ticket)
    now = 20.0
    after = LocalCounts(tmp_path / "limits.db", storage.totals, clock=lambda: now)
    assert isinstance(await taken(after, rates), Ticket)
    assert isinstance(await taken(after, places), Ticket)
    assert refused(await taken(after, rates)).kind == "rate"
    await after.close()
    await before.close()


async def test_a_request_that_cannot_be_counted_uses_up_no_total(
    tmp_path: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = LocalCounts(tmp_path / "limits.db", storage.totals)
    quota = Quota(places=place(3).places, totals=(Cap(1, "t", "scope x: total 1"),), until=UNTIL)
    with monkeypatch.context() as broken:
        broken.setattr(LocalCounts, "_occupy", _full_disk)
        with pytest.raises(StorageError):
            await counts.take(quota)
    assert isinstance(await taken(counts, quota), Ticket)
    assert refused(await taken(counts, quota)).kind == "total"
    await counts.close()


def _full_disk(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


CHILD = """
    import asyncio, sys
    from pathlib import Path
    from limits import RateLimitItemPerMinute
    from broker.limits.base import Ticket
    from broker.limits.local import LocalCounts
    from broker.limits.quota import Cap, Quota, Window
    from broker.storage.sqlite import SqliteStorage

    async def main(directory: Path) -> None:
        storage = SqliteStorage(directory / "broker.db")
        counts = LocalCounts(directory / "limits.db", storage.totals)
        quotas = [
            Quota(windows=(Window(RateLimitItemPerMinute(10), "rate", "rate"),), until=1 << 40),
            Quota(places=(Cap(10, "place", "place"),), until=1 << 40),
            Quota(totals=(Cap(10, "total", "total"),), until=1 << 40),
        ]
        print("ready", flush=True)
        sys.stdin.readline()
        for quota in quotas:
            found = await asyncio.gather(*(counts.take(quota) for _ in range(50)))
            print(sum(isinstance(one, Ticket) for one in found), flush=True)
        sys.stdin.readline()

    asyncio.run(main(Path(sys.argv[1])))
"""


def test_processes_that_burst_together_get_exactly_the_limit(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for child in children:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        counts = [[int(child.stdout.readline()) for _ in range(3)] for child in children]  # type: ignore[union-attr]
        assert [sum(each) for each in zip(*counts, strict=True)] == [10, 10, 10]
    finally:
        for child in children:
            child.kill()
            child.communicate()


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=60), st.integers(1, 5))
def test_a_ring_tells_what_memory_tells(steps: list[tuple[float, int]], limit: int) -> None:
    now = 10.0
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE windows (key TEXT PRIMARY KEY, number INTEGER, until REAL);"
        "CREATE TABLE entries (key TEXT, place INTEGER, at REAL, PRIMARY KEY (key, place));"
    )
    ring, memory = RingStorage(connection, lambda: now), MemoryStorage(lambda: now)
    for pause, what in steps:
        now += pause
        if what == 3:
            if memory.get_moving_window("key", limit, 3)[1]:
                for storage in (ring, memory):
                    assert storage.acquire_entry("other", 1, 60)
                    storage.take_back("other", 1)
            continue
        amount = what + 1
        expected = memory.acquire_entry("key", limit, 3, amount)
        assert ring.acquire_entry("key", limit, 3, amount) == expected
        expected_window = memory.get_moving_window("key", limit, 3)
        assert ring.get_moving_window("key", limit, 3) == expected_window
    now += 10
    ring.forget()
    assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    connection.close()


async def test_a_file_that_cannot_be_written_lets_nothing_through(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    counts = LocalCounts(tmp_path / "limits.db", storage.totals)
    with sqlite3.connect(tmp_path / "limits.db") as other:
        other.execute("DROP TABLE entries")
        other.execute("DROP TABLE windows")
    other.close()
    with pytest.raises(StorageError):
        await counts.take(rated(rate(RateLimitItemPerMinute(1))))
    with pytest.raises(LimitsUnavailable):
        await counts.check()
    await counts.close()


async def test_a_damaged_file_says_what_to_do(tmp_path: Path, storage: SqliteStorage) -> None:
    path = tmp_path / "limits.db"
    path.write_bytes(b"not a database" * 1000)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="delete the file"):
        LocalCounts(path, storage.totals)


async def test_a_look_whether_it_works_keeps_no_snapshot_of_the_file_open(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    looker, busy = (LocalCounts(tmp_path / "limits.db", storage.totals) for _ in range(2))
    for _ in range(2):
        await taken(looker, rated(rate(RateLimitItemPerMinute(9))))
    await looker.check()
    await taken(busy, rated(rate(RateLimitItemPerMinute(9))))
    with closing(sqlite3.connect(tmp_path / "limits.db", timeout=0.2)) as connection:
        row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert row[0] == 0, "somebody still reads what was in the file before"
    for one in (looker, busy):
        await one.close()


async def test_r6_what_a_full_disk_has_kept_from_being_forgotten_is_forgotten_later(
    tmp_path: Path, storage: SqliteStorage
) -> None:
    window = rate(RateLimitItemPerMinute(1))
    before = LocalCounts(tmp_path / "limits.db", storage.totals, clock=lambda: 1e6)
    assert isinstance(await taken(before, rated(window)), Ticket)
    await before.close()
    after = LocalCounts(tmp_path / "limits.db", storage.totals, clock=lambda: 100.0)
    connection = after._committer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        await taken(after, rated(rate(RateLimitItemPerMinute(1), "k" * 9000)))
    connection.execute("PRAGMA max_page_count = 1073741823")
    assert isinstance(await taken(after, rated(window)), Ticket)
    assert refused(await taken(after, rated(window))).wait <= 60
    await after.close()
