from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.errors import StorageError
from broker.storage.sqlite import GRANT_RETENTION, SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

UNTIL = 1_750_000_900


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    store = SqliteStorage(tmp_path / "broker.db")
    yield store
    await store.close()


async def test_counts_up_to_the_most(store: SqliteStorage) -> None:
    found = await asyncio.gather(*(store.totals.count([("k", 5)], UNTIL) for _ in range(20)))
    assert found.count(None) == 5
    assert found.count(0) == 15
    assert await store.totals.used(["k", "other"]) == {"k": 5}


async def test_all_are_counted_or_none(store: SqliteStorage) -> None:
    totals = store.totals
    assert await totals.count([("a", 3), ("b", 1)], UNTIL) is None
    for _ in range(3):
        assert await totals.count([("a", 3), ("b", 1)], UNTIL) == 1
    assert await totals.used(["a", "b"]) == {"a": 1, "b": 1}
    assert await totals.count([], UNTIL) is None


async def test_what_is_taken_back_can_be_counted_again(store: SqliteStorage) -> None:
    totals = store.totals
    assert await totals.count([("a", 1)], UNTIL) is None
    await totals.uncount(["a", "never"])
    assert await totals.used(["a", "never"]) == {}
    assert await totals.count([("a", 1)], UNTIL) is None
    await totals.uncount(["a"])
    await totals.uncount(["a"])
    assert await totals.count([("a", 1)], UNTIL) is None
    assert await totals.count([("a", 1)], UNTIL) == 0


async def test_processes_share_them_and_they_outlast_each(
    store: SqliteStorage, tmp_path: Path
) -> None:
    other = SqliteStorage(tmp_path / "broker.db")
    found = await asyncio.gather(
        *(one.totals.count([("k", 7)], UNTIL) for one in (store, other) for _ in range(10))
    )
    assert found.count(None) == 7
    await other.close()
    again = SqliteStorage(tmp_path / "broker.db")
    assert await again.totals.used(["k"]) == {"k": 7}
    await again.close()


async def test_a_purge_forgets_those_of_grants_that_are_long_over(store: SqliteStorage) -> None:
    await store.totals.count([("k", 7)], UNTIL)
    await store.totals.count([("k", 7)], UNTIL - 500)  # of a child that ends earlier
    assert await store.purge(UNTIL + GRANT_RETENTION - 1) == 0
    assert await store.totals.used(["k"]) == {"k": 2}
    assert await store.purge(UNTIL + GRANT_RETENTION + 1) == 1
    assert await store.totals.used(["k"]) == {}


async def test_a_store_that_is_closed_says_so(store: SqliteStorage) -> None:
    await store.close()
    with pytest.raises(StorageError):
        await store.totals.count([("k", 1)], UNTIL)
