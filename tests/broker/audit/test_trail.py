from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit import trail as module
from broker.audit.journal import Journal
from broker.audit.segment import segment_path
from broker.audit.sync import SyncUnavailable
from broker.audit.trail import AuditTrail
from broker.errors import AuditUnavailable, ConfigurationError
from tests.broker.audit.trails import check, record, records, signing_key, trusted, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture(params=["kernel", "thread"], autouse=True)
def whoever_syncs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel sync, and a thread where the kernel does not offer it."""

    def unavailable(_: asyncio.AbstractEventLoop) -> None:
        raise SyncUnavailable("Operation not permitted")

    if request.param == "thread":
        monkeypatch.setattr(module, "KernelSync", unavailable)


@pytest.fixture
async def trail(journal: Journal) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(journal)
    await trail.start()
    yield trail
    await trail.close()


def break_disk(journal: Journal) -> None:
    """Let every write of the open segment fail as on a full disk."""
    assert journal._segment is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._segment._descriptor)
    os.close(full)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen within 30 s")


async def eventually_heals(trail: AuditTrail) -> None:
    await until(lambda: trail.failure is None)


async def test_a_record_is_on_disk_when_the_trail_says_so(
    directory: Path, trail: AuditTrail
) -> None:
    await trail.record(record(operation="mine"))
    assert records(directory)[-1]["operation"] == "mine"


async def test_callbacks_come_on_the_loop_and_in_order(trail: AuditTrail) -> None:
    told: list[tuple[int, Exception | None, bool]] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def durable(number: int, error: Exception | None) -> None:
        told.append((number, error, asyncio.get_running_loop() is loop))
        if number == 499:
            done.set()

    for number in range(500):
        trail.append(record(), lambda error, number=number: durable(number, error))  # type: ignore[misc]
    assert told == [], "never from within append"
    await asyncio.wait_for(done.wait(), 30)
    assert told == [(number, None, True) for number in range(500)]


async def test_records_without_a_callback_are_kept_too(directory: Path, trail: AuditTrail) -> None:
    for _ in range(10):
        trail.append(record())
    await trail.record(record())
    assert len(records(directory)) == 11


@pytest.fixture
def commits(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of records in the file at each commit that the trail asked for."""
    commits: list[int] = []

    def noting(name: str) -> None:
        method = getattr(journal, name)

        def noted() -> Any:
            commits.append(len(records(journal._directory)))
            return method()

        monkeypatch.setattr(journal, name, noted)

    noting("mark")
    noting("commit_and_tend")
    return commits


async def test_many_waiting_records_share_a_commit(trail: AuditTrail, commits: list[int]) -> None:
    await asyncio.gather(*(trail.record(record()) for _ in range(1000)))
    assert len(commits) < 100


@pytest.mark.usefixtures("headless")
async def test_a_commit_waits_for_others_only_after_it_served_a_crowd(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_LAZY_SECONDS", 3600.0)
    for _ in range(3):
        await asyncio.wait_for(trail.record(record()), 30)  # none of them is a crowd
    await asyncio.gather(*(trail.record(record()) for _ in range(20)))
    some = [asyncio.ensure_future(trail.record(record())) for _ in range(19)]
    trail.append(record())  # does not count
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in some)
    await asyncio.wait_for(trail.record(record()), 30)
    assert all(one.done() for one in some)


async def test_a_crowd_that_does_not_come_again_is_not_waited_for_twice(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(trail.record(record()) for _ in range(20)))
    await asyncio.wait_for(trail.record(record()), 30)
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    await asyncio.wait_for(trail.record(record()), 30)


async def test_while_it_gathers_the_end_is_not_put_off(
    directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(journal)
    await trail.start()
    await asyncio.gather(*(trail.record(record()) for _ in range(50)))
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    alone = asyncio.ensure_future(trail.record(record(operation="alone")))
    await asyncio.sleep(0)
    await asyncio.wait_for(trail.close(), 30)
    await alone
    assert "alone" in [item.get("operation") for item in records(directory)]


def test_opened_again_in_another_loop_it_is_tended_there(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though much was still to be done, some time, when the first one ended."""
    trail = AuditTrail(journal)
    tend = journal.commit_and_tend
    tended: list[bool] = []

    def tend_and_tell() -> None:
        tend()
        tended.append(True)

    async def recorded(due_in: float, *, wait: bool) -> None:
        monkeypatch.setattr(journal, "due_in", lambda: due_in)
        await trail.start()
        await trail.record(record())
        if wait:
            monkeypatch.setattr(journal, "commit_and_tend", tend_and_tell)
            await until(lambda: bool(tended))
        await trail.close()

    asyncio.run(recorded(3600.0, wait=False))
    asyncio.run(recorded(0.01, wait=True))


async def test_a_flood_that_nobody_waits_for_is_written_in_batches(
    directory: Path, trail: AuditTrail, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAZY_SECONDS", 60.0)
    monkeypatch.setattr(module, "_BATCH", 10)
    for _ in range(45):
        trail.append(record())
    await until(lambda: len(records(directory)) == 45)
    assert commits == []
    await asyncio.wait_for(trail.record(record()), 30)
    assert commits == [46]


@pytest.mark.usefixtures("headless")
async def test_what_nobody_waits_for_is_not_written_until_the_nap_is_over(
    directory: Path, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NAP_SECONDS", 3600.0)
    await trail.record(record(operation="first"))
    trail.append(record(operation="second"))
    await asyncio.sleep(0.05)
    assert [item["operation"] for item in records(directory)] == ["first"]
    await asyncio.wait_for(trail.record(record(operation="third")), 30)
    assert [item["operation"] for item in records(directory)] == ["first", "second", "third"]


async def test_what_nobody_waits_for_shares_the_commit_of_what_somebody_does(
    trail: AuditTrail, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAZY_SECONDS", 60.0)
    for _ in range(50):
        await trail.record(record(phase="intent"))
        trail.append(record(phase="outcome"))
    await trail.record(record())
    assert len(commits) == 51


async def test_what_nobody_waits_for_is_written_and_committed_soon(
    directory: Path, trail: AuditTrail, commits: list[int]
) -> None:
    trail.append(record(operation="alone"))
    await until(lambda: [item["operation"] for item in records(directory)] == ["alone"])
    await until(lambda: commits == [1])


async def test_a_callback_that_fails_harms_no_other(
    trail: AuditTrail, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Exception | None) -> None:
        raise RuntimeError("of no concern to the trail")

    trail.append(record(), broken)
    await trail.record(record())
    assert "a callback failed" in caplog.text


async def test_whoever_stops_waiting_disturbs_nobody(directory: Path, trail: AuditTrail) -> None:
    waiting = asyncio.create_task(trail.record(record()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await trail.record(record())
    assert len(records(directory)) == 2


async def test_closing_keeps_everything_that_was_taken(directory: Path, journal: Journal) -> None:
    trail = AuditTrail(journal)
    await trail.start()
    for _ in range(3000):
        trail.append(record())
    await trail.close()
    assert len(records(directory)) == 3001
    report = check(directory)
    assert report.whole
    assert report.writers[0].closed


async def test_a_trail_takes_records_between_start_and_close_alone(journal: Journal) -> None:
    trail = AuditTrail(journal)
    with pytest.raises(AuditUnavailable, match="not been started"):
        trail.append(record())
    await trail.start()
    assert trail.failure is None
    await trail.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        await trail.record(record())
    await trail.close()


async def test_a_trail_that_was_closed_can_be_started_again(
    directory: Path, journal: Journal
) -> None:
    trail = AuditTrail(journal)
    for number in range(2):
        await trail.start()
        await trail.record(record(operation=f"mine-{number}"))
        await trail.close()
    assert [one.get("operation") for one in records(directory)][::2] == ["mine-0", "mine-1"]
    assert check(directory).whole


@pytest.mark.usefixtures("headless")
async def test_a_full_queue_refuses(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    trail = AuditTrail(journal, queue_limit=5)
    await trail.start()
    await asyncio.gather(*(trail.record(record()) for _ in range(5)))
    waiting = [asyncio.create_task(trail.record(record())) for _ in range(4)]
    await asyncio.sleep(0)
    trail.append(record())
    with pytest.raises(AuditUnavailable, match="too many audit records wait"):
        trail.append(record(), lambda _: None)
    await trail.close()
    await asyncio.gather(*waiting)


async def test_a_trail_that_cannot_be_opened_does_not_start(directory: Path) -> None:
    write(directory, 1)
    segment_path(directory, "main", 1).chmod(0o644)
    trail = AuditTrail(Journal(directory, signing_key(), trusted()))
    with pytest.raises(ConfigurationError, match="chmod"):
        await trail.start()
    with pytest.raises(AuditUnavailable, match="not been started"):
        trail.append(record())


async def test_a_disk_that_fails_at_the_start_is_said_so(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("broker.audit.journal.resume", fail)
    with pytest.raises(AuditUnavailable, match=r"cannot be opened.*Input/output error"):
        await AuditTrail(journal).start()


@pytest.mark.usefixtures("trail")
async def test_one_chain_has_one_writer(directory: Path) -> None:
    with pytest.raises(AuditUnavailable, match="another process writes"):
        await AuditTrail(Journal(directory, signing_key(), trusted())).start()


async def test_failure_refuses_all_and_heals_by_itself(
    directory: Path, trail: AuditTrail, journal: Journal
) -> None:
    await trail.record(record(operation="before"))
    break_disk(journal)
    waiting = [trail.record(record(operation="lost")) for _ in range(20)]
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, AuditUnavailable) for error in errors)
    assert "No space left" in str(errors[0])
    await eventually_heals(trail)
    await trail.record(record(operation="after"))
    await trail.close()
    stored = records(directory)
    assert [item.get("operation", item["action"]) for item in stored] == [
        "before",
        "audit.resume",
        "after",
        "audit.checkpoint",
    ]
    assert "20 records were refused" in stored[1]["detail"]
    assert check(directory).whole


async def test_while_it_fails_it_refuses_at_once(
    directory: Path, trail: AuditTrail, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still_broken(reason: str, lost: int) -> None:
        raise OSError(28, f"still {reason} ({lost})")

    restore = journal.restore
    monkeypatch.setattr(journal, "restore", still_broken)
    break_disk(journal)
    with pytest.raises(AuditUnavailable):
        await trail.record(record())
    for _ in range(50):
        with pytest.raises(AuditUnavailable, match="No space left"):
            trail.append(record())
    assert "cannot be written" in str(trail.failure)
    monkeypatch.setattr(journal, "restore", restore)
    await eventually_heals(trail)
    await trail.record(record())
    assert "51 records were refused" in records(directory)[0]["detail"]


async def test_a_trail_that_fails_can_still_be_closed(
    trail: AuditTrail, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still_broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal, "restore", still_broken)
    monkeypatch.setattr(journal, "close", still_broken)
    break_disk(journal)
    with pytest.raises(AuditUnavailable):
        await trail.record(record())
    await asyncio.wait_for(trail.close(), 30)
    journal.abandon()


async def test_a_defect_refuses_records_and_does_not_kill_the_writer(
    directory: Path, trail: AuditTrail
) -> None:
    with pytest.raises(AuditUnavailable):
        await trail.record(record(status=object()))
    await eventually_heals(trail)
    await trail.record(record())
    assert check(directory).whole


async def test_heads_and_checkpoints_are_written_while_nothing_happens(
    directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.journal.CHECKPOINT_SECONDS", 0.05)
    monkeypatch.setattr("broker.audit.journal.HEAD_SECONDS", 0.02)
    trail = AuditTrail(journal)
    await trail.start()
    await trail.record(record())
    await until(lambda: check(directory).writers[0].signed == 2)
    await asyncio.sleep(0.2)
    assert len(records(directory)) == 2, "an idle trail does not sign itself over and over"
    await trail.close()


async def test_the_trail_is_whole_at_any_moment_while_it_is_written(
    directory: Path, trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.journal.CHECKPOINT_SECONDS", 0.01)
    monkeypatch.setattr("broker.audit.journal.HEAD_SECONDS", 0.005)
    monkeypatch.setattr(module, "_BATCH", 30)
    reports = []
    for _ in range(30):
        for _ in range(50):
            trail.append(record())
        reports.append(await asyncio.to_thread(check, directory))
    assert all(report.whole for report in reports), reports[-1].findings
    assert reports[-1].writers[0].records > 50
