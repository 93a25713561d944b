from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond

from broker.limits.base import Ticket
from broker.limits.memory import MemoryCounts, MemoryStorage
from broker.limits.quota import Exceeded
from broker.storage.sqlite import SqliteStorage
from tests.contracts.counts import CountsContract, OpenCounts, place, rate, rated, refused, taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from broker.limits.base import Counts


class NoTotals:
    """Totals that nothing may ask for (`broker.storage.base.TotalStore`)."""

    async def count(self, totals: Sequence[tuple[str, int]], until: float) -> int | None:
        raise AssertionError((totals, until))

    async def uncount(self, keys: Sequence[str]) -> None:
        raise AssertionError(keys)

    async def used(self, keys: Sequence[str]) -> Mapping[str, int]:
        raise AssertionError(keys)


class TestMemoryCounts(CountsContract):
    @pytest.fixture
    async def open_counts(self, tmp_path: Path) -> AsyncIterator[OpenCounts]:
        opened: list[SqliteStorage] = []

        async def open_one() -> Counts:
            for one in opened:
                await one.close()
            opened.append(SqliteStorage(tmp_path / "broker.db"))
            return MemoryCounts(opened[-1].totals)

        yield open_one
        await opened[-1].close()


def test_without_totals_nothing_is_waited_for() -> None:
    counts = MemoryCounts(NoTotals())
    quota = rated(rate(RateLimitItemPerMinute(1)))
    assert isinstance(counts.take_now(quota), Ticket)
    assert isinstance(counts.take_now(quota), Exceeded)


async def test_a_clock_that_is_set_back_lets_nothing_more_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts, quota = MemoryCounts(NoTotals()), rated(rate(RateLimitItemPerMinute(3)))
    for _ in range(3):
        assert isinstance(await taken(counts, quota), Ticket)
    for step in (-3600, -86_400, 3600, 86_400):
        monkeypatch.setattr("time.time", lambda step=step: 1_750_000_000 + step)
        exceeded = refused(await taken(counts, quota))
        assert 1 <= exceeded.wait <= 60


def test_the_wait_is_until_the_oldest_leaves_the_window() -> None:
    now = 1000.0
    counts = MemoryCounts(NoTotals(), clock=lambda: now)
    quota = rated(rate(RateLimitItemPerMinute(2)))
    assert isinstance(counts.take_now(quota), Ticket)
    now = 1030.5
    assert isinstance(counts.take_now(quota), Ticket)
    now = 1031.0
    outcome = counts.take_now(quota)
    assert isinstance(outcome, Exceeded)
    assert outcome.wait == 29
    now = 1060.1
    assert isinstance(counts.take_now(quota), Ticket)
    outcome = counts.take_now(quota)
    assert isinstance(outcome, Exceeded)
    assert outcome.wait == 31


@given(
    st.lists(st.tuples(st.floats(0, 2.5), st.integers(1, 4)), max_size=60),
    st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from([1, 3])), min_size=1, max_size=3, unique=True
    ),
)
def test_never_more_than_any_rate_in_any_window(
    steps: list[tuple[float, int]], rates: list[tuple[int, int]]
) -> None:
    """Hold it against a plain model: all moments at which something was let through."""
    now = 50.0
    counts = MemoryCounts(NoTotals(), clock=lambda: now)
    items = [RateLimitItemPerSecond(amount, multiples) for amount, multiples in rates]
    quota = rated(*(rate(item, "one key") for item in items))
    through: list[float] = []
    for pause, tries in steps:
        now += pause
        for _ in range(tries):
            room = all(
                sum(moment >= now - item.get_expiry() for moment in through) < item.amount
                for item in items
            )
            outcome = counts.take_now(quota)
            assert isinstance(outcome, Ticket) == room
            through += [now] if room else []
            if isinstance(outcome, Exceeded):
                assert outcome.wait >= 1
    for item in items:
        for begin in through:
            inside = [one for one in through if begin <= one < begin + item.get_expiry()]
            assert len(inside) <= item.amount


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 5))
def test_as_many_places_as_there_are_and_all_come_back(steps: list[bool], most: int) -> None:
    counts, quota = MemoryCounts(NoTotals()), place(most)
    held: list[Ticket] = []
    for arrives in steps:
        if arrives:
            outcome = counts.take_now(quota)
            assert isinstance(outcome, Ticket) == (len(held) < most)
            held += [outcome] if isinstance(outcome, Ticket) else []
        elif held:
            counts.give_back(held.pop())
    for ticket in held:
        counts.give_back(ticket)
    assert [type(counts.take_now(quota)) for _ in range(most + 1)] == [Ticket] * most + [Exceeded]


def test_windows_that_are_over_are_forgotten() -> None:
    now = 0.0
    storage = MemoryStorage(lambda: now)
    for number in range(5000):
        now += 1
        assert storage.acquire_entry(f"key {number}", 1, 10)
    assert len(storage) < 2100
    assert storage.get_moving_window("key 4999", 1, 10) == (5000.0, 1)


def test_is_a_storage_of_the_library_for_moving_windows_alone() -> None:
    storage = MemoryStorage()
    assert storage.acquire_entry("a", 3, 60, amount=2)
    assert not storage.acquire_entry("a", 3, 60, amount=2)
    storage.clear("a")
    assert storage.acquire_entry("a", 3, 60, amount=3)
    assert storage.reset() == 1
    assert storage.check()
    with pytest.raises(NotImplementedError, match="moving windows"):
        storage.incr("a", 60)
    with pytest.raises(NotImplementedError, match="moving windows"):
        storage.get("a")
    with pytest.raises(NotImplementedError, match="moving windows"):
        storage.get_expiry("a")
