"""Records that may change until somebody waits for them (`BusyTrail`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.audit import trail as module
from broker.audit.trail import AuditTrail
from broker.errors import AuditUnavailable
from broker.repeated import RecordTemplate, RepeatedRecord
from tests.broker.audit.test_trail import break_disk, eventually_heals, until
from tests.broker.audit.trails import NOON, check, record, records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.audit.journal import Journal

TEMPLATES = {phase: RecordTemplate(record(phase=phase)) for phase in ("intent", "outcome")}


@pytest.fixture
async def trail(journal: Journal) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(journal)
    await trail.start()
    yield trail
    await trail.close()


@pytest.fixture
async def crowded(
    headless: None,  # noqa: ARG001
    trail: AuditTrail,
    monkeypatch: pytest.MonkeyPatch,
) -> AuditTrail:
    """A trail whose last commit served a crowd, which it waits for again."""
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    await asyncio.gather(*(trail.record(record()) for _ in range(4)))
    return trail


class Waiter:
    """An intent, and what its writer is told of it."""

    def __init__(self, operation: str) -> None:
        self.told: list[Exception | None] = []
        self.intent = RepeatedRecord(NOON, TEMPLATES["intent"], operation)

    def add(self, trail: AuditTrail) -> None:
        trail.append_beside(self.intent, self.told.append)

    def answer(self) -> None:
        """Make the intent an outcome."""
        assert not self.intent.written
        self.intent.template, self.intent.status = TEMPLATES["outcome"], 200


def phases(directory: Path, operation: str) -> list[str]:
    return [one["phase"] for one in records(directory) if one.get("operation") == operation]


async def test_alone_it_is_written_at_once(directory: Path, trail: AuditTrail) -> None:
    waiter = Waiter("alone")
    waiter.add(trail)
    await until(lambda: waiter.told == [None])
    assert waiter.intent.written
    assert phases(directory, "alone") == ["intent"]
    trail.press(waiter.intent)
    await asyncio.sleep(0.1)
    assert waiter.told == [None]
    assert phases(directory, "alone") == ["intent"]


async def test_in_a_crowd_it_changes_until_somebody_waits_for_it(
    directory: Path, crowded: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BESIDE_SECONDS", 3600.0)
    waiters = [Waiter(f"mine-{number}") for number in range(8)]
    for waiter in waiters:
        waiter.add(crowded)
    await asyncio.sleep(0.1)
    assert not any(waiter.intent.written for waiter in waiters)
    for waiter in waiters[:3]:
        waiter.answer()
        crowded.press(waiter.intent)
    await asyncio.sleep(0.1)
    assert not any(waiter.told for waiter in waiters)  # for the crowd were four
    crowded.press(waiters[3].intent)
    await until(lambda: all(waiter.told == [None] for waiter in waiters[:4]))
    assert not any(waiter.told for waiter in waiters[4:])
    found = [phases(directory, f"mine-{number}") for number in range(5)]
    assert found == [["outcome"], ["outcome"], ["outcome"], ["intent"], []]


async def test_what_nobody_ever_waits_for_is_written_soon(
    directory: Path, crowded: AuditTrail
) -> None:
    waiters = [Waiter(f"mine-{number}") for number in range(4)]
    for waiter in waiters:
        waiter.add(crowded)
    await until(lambda: all(waiter.told == [None] for waiter in waiters))
    assert phases(directory, "mine-3") == ["intent"]


async def test_closing_keeps_it(directory: Path, crowded: AuditTrail) -> None:
    waiter = Waiter("last")
    waiter.add(crowded)
    assert not waiter.intent.written
    await crowded.close()
    assert waiter.told == [None]
    assert phases(directory, "last") == ["intent"]
    assert check(directory).whole


async def test_a_failure_is_told_to_whoever_would_have_waited(
    directory: Path, crowded: AuditTrail, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BESIDE_SECONDS", 3600.0)
    waiter = Waiter("lost")
    waiter.add(crowded)
    break_disk(journal)
    failing = asyncio.gather(*(crowded.record(record()) for _ in range(4)), return_exceptions=True)
    assert {type(error) for error in await failing} == {AuditUnavailable}
    assert [type(error) for error in waiter.told] == [AuditUnavailable]
    crowded.press(waiter.intent)
    with pytest.raises(AuditUnavailable):
        waiter.add(crowded)
    await eventually_heals(crowded)
    await crowded.close()
    assert phases(directory, "lost") == []
    assert "6 records were refused" in records(directory)[4]["detail"]
    assert len(waiter.told) == 1
    assert check(directory).whole


@pytest.mark.usefixtures("headless")
async def test_it_is_refused_where_too_much_is_beside(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_BESIDE_SECONDS", 3600.0)
    trail = AuditTrail(journal, queue_limit=8)
    with pytest.raises(AuditUnavailable, match="not been started"):
        Waiter("early").add(trail)
    await trail.start()
    await asyncio.gather(*(trail.record(record()) for _ in range(8)))
    for number in range(8):
        Waiter(f"beside-{number}").add(trail)
    waiters = [Waiter(f"queued-{number}") for number in range(8)]
    for waiter in waiters:
        waiter.add(trail)
    with pytest.raises(AuditUnavailable, match="too many"):
        Waiter("too many").add(trail)
    await until(lambda: all(waiter.told == [None] for waiter in waiters))
    await trail.close()
