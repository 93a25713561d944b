"""What whoever counts requests must do; subclass it and give it an `open_counts` fixture."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Protocol

import pytest
from limits import RateLimitItemPerDay, RateLimitItemPerMinute, RateLimitItemPerSecond

from broker.limits.base import FREE, Ticket
from broker.limits.quota import Cap, Exceeded, Quota, Window

if TYPE_CHECKING:
    from limits import RateLimitItem

    from broker.limits.base import Counts

UNTIL = int(time.time()) + 900


class OpenCounts(Protocol):
    """Open the same counts once more, as another worker or broker would, or the same anew."""

    async def __call__(self) -> Counts: ...


def key(word: str = "key") -> str:
    """A key that no other test counts under."""
    return f"{word}/{secrets.token_hex(6)}"


def rate(item: RateLimitItem, under: str | None = None) -> Window:
    under = under or key()
    return Window(item, under, f"scope x: rate {item.amount}/{item.GRANULARITY.name}")


def rated(*windows: Window) -> Quota:
    return Quota(windows=windows, until=UNTIL)


def place(most: int, under: str | None = None) -> Quota:
    under = under or key()
    return Quota(places=(Cap(most, under, f"agent a: concurrent {most}"),), until=UNTIL)


def total(most: int, *under: str) -> Quota:
    caps = tuple(Cap(most, one, f"scope x: total {most}") for one in under)
    return Quota(totals=caps, until=UNTIL)


async def taken(counts: Counts, quota: Quota) -> Ticket | Exceeded:
    return counts.take_now(quota) or await counts.take(quota)


async def burst(counts: Counts, quota: Quota, number: int) -> list[Ticket | Exceeded]:
    return list(await asyncio.gather(*(taken(counts, quota) for _ in range(number))))


def passed(outcomes: list[Ticket | Exceeded]) -> list[Ticket]:
    return [one for one in outcomes if isinstance(one, Ticket)]


def refused(outcome: Ticket | Exceeded) -> Exceeded:
    assert isinstance(outcome, Exceeded)
    return outcome


class CountsContract:
    """The behaviour that the rest of the broker relies on."""

    @pytest.fixture
    async def counts(self, open_counts: OpenCounts) -> Counts:
        return await open_counts()

    async def test_a_burst_gets_exactly_what_the_rate_lets_through(self, counts: Counts) -> None:
        quota = rated(rate(RateLimitItemPerMinute(10)))
        outcomes = await burst(counts, quota, 100)
        assert len(passed(outcomes)) == 10
        exceeded = refused(await taken(counts, quota))
        assert (exceeded.kind, exceeded.name) == ("rate", "scope x: rate 10/minute")
        assert 1 <= exceeded.wait <= 60

    async def test_there_is_room_again_once_the_window_has_moved_on(self, counts: Counts) -> None:
        quota = rated(rate(RateLimitItemPerSecond(2, 4)))
        assert len(passed(await burst(counts, quota, 5))) == 2
        await asyncio.sleep(4.05)
        assert len(passed(await burst(counts, quota, 5))) == 2

    async def test_each_key_has_a_count_of_its_own(self, counts: Counts) -> None:
        for _ in range(3):
            quota = rated(rate(RateLimitItemPerMinute(1)))
            assert len(passed(await burst(counts, quota, 3))) == 1

    async def test_what_one_limit_refuses_uses_up_no_other(self, counts: Counts) -> None:
        wide, narrow = rate(RateLimitItemPerDay(5)), rate(RateLimitItemPerMinute(2))
        both = rated(wide, narrow)
        assert len(passed(await burst(counts, both, 20))) == 2
        assert len(passed(await burst(counts, rated(wide), 20))) == 3
        exceeded = refused(await taken(counts, both))
        assert exceeded.name == "scope x: rate 5/day"  # the one that takes the longest
        assert exceeded.wait > 3600

    async def test_a_full_place_uses_up_no_rate_and_no_total(self, counts: Counts) -> None:
        window, under = rate(RateLimitItemPerMinute(3)), key("total")
        full = place(1)
        held = await taken(counts, full)
        quota = Quota(
            windows=(window,), places=full.places, totals=total(3, under).totals, until=UNTIL
        )
        for _ in range(5):
            assert refused(await taken(counts, quota)).kind == "concurrent"
        assert isinstance(held, Ticket)
        counts.give_back(held)
        await settled(counts, full)
        assert len(passed(await burst(counts, rated(window), 5))) == 3
        assert len(passed(await burst(counts, total(3, under), 5))) == 3

    async def test_places_are_for_those_under_way(self, counts: Counts) -> None:
        quota = place(4)
        first = passed(await burst(counts, quota, 50))
        assert len(first) == 4
        exceeded = refused(await taken(counts, quota))
        assert (exceeded.kind, exceeded.name, exceeded.wait) == (
            "concurrent",
            "agent a: concurrent 4",
            1,
        )
        for ticket in first[:3]:
            counts.give_back(ticket)
        await settled(counts, quota)
        assert len(passed(await burst(counts, quota, 50))) == 3

    async def test_what_takes_no_place_needs_none_given_back(self, counts: Counts) -> None:
        assert await taken(counts, rated(rate(RateLimitItemPerMinute(1)))) is FREE
        counts.give_back(FREE)

    async def test_a_total_is_for_ever(self, counts: Counts, open_counts: OpenCounts) -> None:
        quota = total(5, key("total"))
        assert len(passed(await burst(counts, quota, 3))) == 3
        await counts.close()
        again = await open_counts()
        assert len(passed(await burst(again, quota, 20))) == 2
        exceeded = refused(await taken(again, quota))
        assert (exceeded.kind, exceeded.name) == ("total", "scope x: total 5")
        assert 1 <= exceeded.wait <= 900

    async def test_children_count_against_what_they_descend_from(self, counts: Counts) -> None:
        root, one, other = key("root"), key("child"), key("child")
        for child in (one, other, one, other):
            assert isinstance(await taken(counts, total(4, child, root)), Ticket)
        for quota in (total(4, one, root), total(4, other, root), total(4, root)):
            assert refused(await taken(counts, quota)).kind == "total"
        assert isinstance(await taken(counts, total(4, one)), Ticket)  # it has used two itself

    async def test_a_refused_request_with_a_total_is_not_counted(self, counts: Counts) -> None:
        under, window = key("total"), rate(RateLimitItemPerMinute(2))
        both = Quota(windows=(window,), totals=total(5, under).totals, until=UNTIL)
        assert len(passed(await burst(counts, both, 40))) == 2
        assert len(passed(await burst(counts, total(5, under), 40))) == 3

    async def test_says_that_it_can_count(self, counts: Counts) -> None:
        await counts.check()


async def settled(counts: Counts, quota: Quota) -> None:
    """Wait until a place that was given back is free for others."""
    async with asyncio.timeout(5):
        while isinstance(ticket := await taken(counts, quota), Exceeded):  # noqa: ASYNC110 - polls
            await asyncio.sleep(0.01)
    counts.give_back(ticket)
    await asyncio.sleep(0.05)


class SharedCountsContract(CountsContract):
    """What is asked of counts that several processes share."""

    async def test_two_count_together(self, counts: Counts, open_counts: OpenCounts) -> None:
        other = await open_counts()
        quota = rated(rate(RateLimitItemPerMinute(10)))
        both = await asyncio.gather(burst(counts, quota, 50), burst(other, quota, 50))
        assert len(passed(both[0]) + passed(both[1])) == 10
        under_way = place(4)
        held = await asyncio.gather(burst(counts, under_way, 20), burst(other, under_way, 20))
        assert len(passed(held[0]) + passed(held[1])) == 4
        used = total(7, key("total"))
        spent = await asyncio.gather(burst(counts, used, 20), burst(other, used, 20))
        assert len(passed(spent[0]) + passed(spent[1])) == 7

    async def test_closing_gives_back_what_is_held(
        self, counts: Counts, open_counts: OpenCounts
    ) -> None:
        other, quota = await open_counts(), place(2)
        assert len(passed(await burst(counts, quota, 5))) == 2
        assert refused(await taken(other, quota)).kind == "concurrent"
        await counts.close()
        assert len(passed(await burst(other, quota, 5))) == 2
