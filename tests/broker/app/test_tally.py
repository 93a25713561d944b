from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.app.scoreboard import SUPERVISOR, Scoreboard
from broker.app.tally import SILENT_AFTER, Tally, publish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Seat:
    """A worker with some metrics; its clock stands unless it is moved."""

    def __init__(self, board: Scoreboard, number: int) -> None:
        self.now = 1000.0
        self.unwell: Mapping[str, str] = {}
        registry = CollectorRegistry()
        self.requests = Counter("requests", "Some.", ("service",), registry=registry)
        self.seconds = Histogram("seconds", "Some.", buckets=(1, 2), registry=registry)
        self.open = Gauge("open", "Some.", registry=registry)
        self.leases = Gauge("broker_leases", "Of all.", registry=registry)
        self.tally = Tally(registry, board, number, lambda: self.unwell, lambda: self.now)

    def shown(self) -> dict[str, float]:
        """Return what a scrape that reaches this worker shows."""
        families = text_string_to_metric_families(generate_latest(self.tally).decode())
        return {
            "/".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(2)
    yield board
    board.close()


def test_whichever_worker_is_asked_all_are_counted(board: Scoreboard) -> None:
    one, two = Seat(board, 1), Seat(board, 2)
    one.requests.labels("a").inc(3)
    two.requests.labels("a").inc(4)
    two.requests.labels("b").inc()
    one.seconds.observe(0.5)
    two.seconds.observe(1.5)
    one.open.set(2)
    two.open.set(5)
    for seat in (one, two):
        seat.leases.set(7)
        seat.tally.publish()
    for seat in (one, two):
        shown = seat.shown()
        assert (shown["requests_total/a"], shown["requests_total/b"]) == (7, 1)
        assert [shown[f"seconds_bucket/{le}"] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
        assert (shown["seconds_count"], shown["seconds_sum"]) == (2, 2.0)
        assert shown["open"] == 7
        assert shown["broker_leases"] == 7, "every worker reads these from the same store"


def test_no_count_falls_when_a_worker_is_replaced(board: Scoreboard) -> None:
    one, two = Seat(board, 1), Seat(board, 2)
    one.requests.labels("a").inc(3)
    two.requests.labels("a").inc(4)
    two.open.set(5)
    assert two.shown()["requests_total/a"] == 4
    assert one.shown()["requests_total/a"] == 7
    two = Seat(board, 2)
    assert one.shown()["requests_total/a"] == 7
    two.requests.labels("a").inc()
    two.tally.publish()
    shown = one.shown()
    assert (shown["requests_total/a"], shown["open"]) == (8, 0)
    third = Seat(board, 2)
    third.tally.publish()
    assert one.shown()["requests_total/a"] == 8


def test_what_has_been_shown_is_not_lost_with_its_worker(board: Scoreboard) -> None:
    one = Seat(board, 1)
    one.requests.labels("a").inc(3)
    assert one.shown()["requests_total/a"] == 3
    assert Seat(board, 1).shown()["requests_total/a"] == 3


def test_a_silent_worker_s_counts_stay_and_its_gauges_do_not(board: Scoreboard) -> None:
    one, two = Seat(board, 1), Seat(board, 2)
    two.requests.labels("a").inc(4)
    two.open.set(5)
    two.tally.publish()
    one.now += SILENT_AFTER + 1
    shown = one.shown()
    assert (shown["requests_total/a"], shown["open"]) == (4, 0)
    assert list(one.tally.unwell_others()) == [(2, "has not been heard of for 5 s")]


def test_others_that_are_unwell_are_named(board: Scoreboard) -> None:
    one, two = Seat(board, 1), Seat(board, 2)
    assert [number for number, _ in one.tally.unwell_others()] == [2]
    two.unwell = {"audit": "no space left"}
    two.tally.publish()
    assert list(one.tally.unwell_others()) == [(2, "audit: no space left")]
    two.unwell = {}
    two.tally.publish()
    assert list(one.tally.unwell_others()) == []


def test_the_supervisor_s_numbers_never_grow_old(board: Scoreboard) -> None:
    registry = CollectorRegistry()
    Gauge("workers", "Some.", registry=registry).set(2)
    publish(board, SUPERVISOR, registry.collect())
    one = Seat(board, 1)
    one.now += 1e6
    assert one.shown()["workers"] == 2


async def test_a_metric_that_cannot_be_read_ends_nothing(
    board: Scoreboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Mapping[str, str]:
        raise RuntimeError("defect")

    monkeypatch.setattr("broker.app.tally.PUBLISH_EVERY", 0.001)
    tally = Tally(CollectorRegistry(), board, 1, fail)
    keeping = asyncio.create_task(tally.keep_published())
    while caplog.text.count("could not be published") < 3:  # noqa: ASYNC110 - a test's patience
        await asyncio.sleep(0.001)
    assert not keeping.done()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_it_is_kept_published_to_the_end(board: Scoreboard) -> None:
    one, two = Seat(board, 1), Seat(board, 2)
    keeping = asyncio.create_task(two.tally.keep_published())
    await asyncio.sleep(0)
    two.requests.labels("a").inc(2)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert one.shown()["requests_total/a"] == 2
