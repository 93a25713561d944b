from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[SqliteStorage, SqliteStorage]]:
    """The same database, opened twice."""
    path = tmp_path / "broker.db"
    first, second = SqliteStorage(path), SqliteStorage(path)
    yield first, second
    await first.close()
    await second.close()


Two = tuple[SqliteStorage, SqliteStorage]


async def test_one_at_a_time_has_a_state(two: Two) -> None:
    first, second = (one.states for one in two)
    assert await first.claim("k", "a", until=30, now=0) == (True, None)
    assert await second.claim("k", "b", until=30, now=1) == (False, None)
    assert await second.claim("other", "b", until=30, now=1) == (True, None)
    assert await first.keep("k", "a", b"value")
    await first.release("k", "a")
    assert await second.claim("k", "b", until=30, now=2) == (True, b"value")


async def test_a_claim_ends_by_itself_and_its_holder_changes_nothing_more(two: Two) -> None:
    first, second = (one.states for one in two)
    await first.claim("k", "a", until=30, now=0)
    assert await second.claim("k", "b", until=60, now=31) == (True, None)
    assert not await first.keep("k", "a", b"too late")
    await first.release("k", "a")
    assert await first.claim("k", "a", until=60, now=32) == (False, None)
    assert await second.keep("k", "b", b"value")


async def test_nobody_keeps_what_nobody_claimed(two: Two) -> None:
    assert not await two[0].states.keep("k", "a", b"value")
