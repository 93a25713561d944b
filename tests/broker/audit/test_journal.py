from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from broker.audit import journal as module
from broker.audit.head import Anchor, Head, head_path, read_head
from broker.audit.journal import Journal, Rotation
from broker.audit.segment import list_segments, segment_path
from broker.errors import AuditUnavailable, ConfigurationError
from tests.broker.audit.trails import (
    NOON,
    check,
    lines,
    open_journal,
    record,
    records,
    signing_key,
    trusted,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


hasty = pytest.mark.usefixtures("nothing_waits")


@pytest.fixture
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and heads are due at once."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.0)


def head(directory: Path, writer: str = "main") -> Head:
    found = read_head(directory, writer, trusted())
    assert isinstance(found, Head)
    return found


def test_a_run_leaves_records_a_checkpoint_and_a_closed_head(directory: Path) -> None:
    write(directory, 3)
    stored = records(directory)
    assert [item["seq"] for item in stored] == [1, 2, 3, 4]
    assert stored[-1]["action"] == "audit.checkpoint"
    assert (head(directory).seq, head(directory).closed) == (4, True)
    assert check(directory).whole


def test_an_idle_run_leaves_nothing_but_its_head(directory: Path) -> None:
    write(directory, 0)
    write(directory, 0)
    assert lines(directory) == []
    assert head(directory).seq == 0
    assert check(directory).whole


def test_a_second_run_goes_on_with_the_chain(directory: Path) -> None:
    write(directory, 2)
    write(directory, 2)
    assert [item["seq"] for item in records(directory)] == [1, 2, 3, 4, 5, 6]
    assert len(list_segments(directory)) == 1
    assert check(directory).whole


def test_a_crash_right_after_a_good_end_is_no_interference(directory: Path) -> None:
    write(directory, 1)
    journal = open_journal(directory)
    assert not head(directory).closed
    journal.add([record()])
    journal.commit()
    assert check(directory).whole
    journal.abandon()
    write(directory, 1)
    assert check(directory).whole


def test_a_crash_is_on_record(directory: Path) -> None:
    journal = open_journal(directory)
    journal.add([record(), record()])
    journal.commit()
    journal.abandon()
    with segment_path(directory, "main", 1).open("ab") as file:
        file.write(b'{"v":1,"torn')
    write(directory, 1)
    stored = records(directory)
    assert [item["action"] for item in stored] == [
        "proxy.request",
        "proxy.request",
        "audit.recover",
        "proxy.request",
        "audit.checkpoint",
    ]
    assert "2 records behind its head" in stored[2]["detail"]
    assert "12 bytes of an incomplete record" in stored[2]["detail"]
    report = check(directory)
    assert report.whole
    assert "record 3" in report.writers[0].notes[0]


def test_everything_is_owner_only_whatever_the_umask(directory: Path) -> None:
    before = os.umask(0)
    try:
        write(directory, 1)
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_directory_that_others_can_read_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="chmod"):
        open_journal(directory)


def test_a_writer_needs_a_name(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="lower-case"):
        open_journal(directory, writer="../main")


@hasty
def test_checkpoints_and_heads_come_while_records_are_written(directory: Path) -> None:
    anchors: list[Anchor] = []
    journal = open_journal(directory, anchor=anchors.append)
    for _ in range(3):
        journal.add([record()])
        journal.commit()
        journal.tend()
        assert head(directory).seq == len(lines(directory))
    journal.abandon()
    actions = [item["action"] for item in records(directory)]
    assert actions == ["proxy.request", "audit.checkpoint"] * 3
    assert [anchor.seq for anchor in anchors] == [2, 4, 6]
    assert check(directory, anchors).whole


def test_what_is_due_is_known_ahead(directory: Path) -> None:
    journal = open_journal(directory)
    assert journal.due_in() is None
    journal.add([record()])
    journal.commit()
    due = journal.due_in()
    assert due is not None
    assert due <= module.HEAD_SECONDS < module.CHECKPOINT_SECONDS <= 60
    journal.close()


@hasty
def test_the_head_never_leads(directory: Path) -> None:
    journal = open_journal(directory)
    journal.add([record()])
    assert head(directory).seq == 0
    journal.commit()
    assert head(directory).seq == 0
    journal.tend()
    assert head(directory).seq == 2
    assert head(directory).offset == segment_path(directory, "main", 1).stat().st_size
    journal.close()


@pytest.mark.parametrize(
    "rotation", [Rotation(size=2000), Rotation(age=10.0)], ids=["by size", "by age"]
)
def test_segments_rotate_and_stay_linked(directory: Path, rotation: Rotation) -> None:
    clock = iter(range(1_000_000))
    write(directory, 20, rotation=rotation, clock=lambda: float(next(clock)))
    segments = list_segments(directory)
    assert len(segments) >= 3
    for segment in segments[:-1]:
        last = segment.path.read_bytes().splitlines()[-1]
        assert b'"action":"audit.checkpoint"' in last, "a segment ends signed"
    assert [item["seq"] for item in records(directory)] == list(range(1, len(lines(directory)) + 1))
    assert check(directory).whole
    write(directory, 1, rotation=rotation, clock=lambda: float(next(clock)))
    assert check(directory).whole


def test_the_age_of_a_segment_outlives_a_restart(directory: Path) -> None:
    old = [record(time=NOON)]
    write(directory, old, clock=lambda: NOON)
    write(directory, 1, rotation=Rotation(age=60.0), clock=lambda: NOON + 61)
    assert len(list_segments(directory)) == 2
    assert check(directory).whole


def test_a_rotation_that_fails_is_tried_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> int:
        raise ConfigurationError(f"cannot create {path}: No space left on device")

    journal = open_journal(directory, rotation=Rotation(size=1))
    journal.add([record()])
    journal.commit()
    with monkeypatch.context() as failing:
        failing.setattr("broker.audit.segment.open_private_append", full)
        with pytest.raises(ConfigurationError):
            journal.tend()
        with pytest.raises(ConfigurationError):
            journal.restore("No space left on device", 0)
    journal.restore("No space left on device", 0)
    journal.tend()
    journal.add([record()])
    journal.commit()
    journal.close()
    assert len(list_segments(directory)) == 2
    assert check(directory).whole


def _hold(directory: Path, held: Any, release: Any) -> None:
    journal = open_journal(directory)
    held.set()
    release.wait(30)
    journal.close()


def test_no_two_processes_write_one_chain(directory: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(directory, held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(AuditUnavailable, match="another process writes"):
            open_journal(directory)
        write(directory, 1, writer="cli")
        waiting = Journal(directory, signing_key(), trusted())
        release.set()
        waiting.open(wait=30)
        waiting.close()
    finally:
        release.set()
        other.join(30)
    assert check(directory).whole


def test_a_lock_is_released_when_opening_fails(directory: Path) -> None:
    write(directory, 1)
    segment_path(directory, "main", 1).chmod(0o644)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="chmod"):
            open_journal(directory)
    segment_path(directory, "main", 1).chmod(0o600)
    write(directory, 1)


def test_a_journal_that_is_not_open_takes_nothing(directory: Path) -> None:
    journal = Journal(directory, signing_key(), trusted())
    with pytest.raises(AuditUnavailable, match="not open"):
        journal.add([record()])


def test_writers_vouch_for_each_other(directory: Path) -> None:
    write(directory, 1, writer="cli")
    write(directory, 1)
    checkpoint = records(directory, "main")[-1]
    cli = head(directory, "cli")
    assert checkpoint["heads"] == {"cli": {"seq": cli.seq, "hash": cli.hash}}


def test_a_failed_write_leaves_the_chain_as_it_was(directory: Path) -> None:
    journal = open_journal(directory)
    journal.add([record()])
    journal.commit()
    assert journal._segment is not None
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        os.dup2(full.fileno(), journal._segment._descriptor)
    with pytest.raises(OSError, match="No space left"):
        journal.add([record()])
    journal.restore("No space left on device", 7)
    journal.add([record()])
    journal.commit()
    journal.close()
    stored = records(directory)
    assert [item["action"] for item in stored] == [
        "proxy.request",
        "audit.resume",
        "proxy.request",
        "audit.checkpoint",
    ]
    assert stored[1]["detail"] == (
        "7 records were refused and are not here: No space left on device"
    )
    report = check(directory)
    assert report.whole
    assert "7 records were refused" in report.writers[0].notes[0]


def test_half_a_write_is_taken_back(directory: Path) -> None:
    journal = open_journal(directory)
    journal.add([record()])
    journal.commit()
    journal.add([record()])  # written, and never committed
    journal.restore("Input/output error", 1)
    journal.close()
    assert [item["seq"] for item in records(directory)] == [1, 2, 3]
    assert check(directory).whole


def test_closing_after_a_failure_leaves_what_a_crash_would(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that was refused may be there; a checkpoint that does not fit may not."""
    journal = open_journal(directory)
    journal.add([record()])
    journal.commit()
    journal.add([record()])
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", _input_output_error)
        with pytest.raises(OSError, match="Input/output"):
            journal.commit()
    journal.close()
    assert [item["action"] for item in records(directory)] == ["proxy.request"] * 2
    assert check(directory).whole
    write(directory, 1)
    assert check(directory).whole


def _input_output_error(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_an_anchor_that_cannot_be_kept_stops_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(_: Anchor) -> None:
        raise RuntimeError("the other place is down")

    write(directory, 1, anchor=unreachable)
    assert "could not be kept elsewhere" in caplog.text
    assert check(directory).whole


@hasty
@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "cut", "added to"])
def test_interference_while_we_write_ends_up_on_record(directory: Path, how: str) -> None:
    journal = open_journal(directory)
    journal.add([record()])
    journal.commit()
    segment = segment_path(directory, "main", 1)
    if how == "removed":
        segment.unlink()
    elif how == "moved":
        segment.rename(segment.with_name("elsewhere"))
    elif how == "replaced":
        copy = segment.with_name("copy")
        copy.write_bytes(segment.read_bytes())
        copy.chmod(0o600)
        copy.replace(segment)
    elif how == "cut":
        os.truncate(segment, 0)
    else:
        with segment.open("ab") as file:
            file.write(b"forged\n")
    with pytest.raises(OSError, match=r"changed by someone else|removed|place|cut|added"):
        _write_once(journal)
    journal.restore("it was changed", 1)
    _write_once(journal)
    journal.close()
    assert any(item["action"] == "audit.break" for item in _readable(directory))
    assert not check(directory).whole
    write(directory, 1)
    assert not check(directory).whole, "a break stays"


def _write_once(journal: Journal) -> None:
    journal.add([record()])
    journal.commit()
    journal.tend()


def _readable(directory: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines(directory) if line.startswith(b"{")]


def test_a_name_that_is_taken_is_left_alone(directory: Path) -> None:
    journal = open_journal(directory)
    segment = segment_path(directory, "main", 1)
    segment.unlink()
    segment.write_bytes(b"forged\n")
    with pytest.raises(OSError, match="changed by someone else"):
        _write_once(journal)
    journal.restore("it was changed", 1)
    journal.close()
    assert segment.read_bytes() == b"forged\n"
    assert [item["seq"] for item in _readable(directory)] == [2, 3, 4]
    assert not check(directory).whole


@pytest.mark.parametrize("time", [b'"x' + b"y" * 26 + b'"', b"5" + b" " * 28])
def test_a_segment_of_no_known_age_goes_on(directory: Path, time: bytes) -> None:
    write(directory, 1)
    path = segment_path(directory, "main", 1)
    path.write_bytes(path.read_bytes().replace(b'"2026-03-15T10:23:45.123456Z"', time, 1))
    write(directory, 1)
    assert len(list_segments(directory)) == 1
    assert check(directory).findings[0].seq == 1


def test_a_crash_before_the_first_segment_is_no_interference(directory: Path) -> None:
    open_journal(directory).abandon()
    segment_path(directory, "main", 1).unlink()
    write(directory, 1)
    assert check(directory).whole


def test_a_tail_that_was_cut_while_we_were_away_ends_up_on_record(directory: Path) -> None:
    write(directory, 3)
    segment = segment_path(directory, "main", 1)
    os.truncate(segment, segment.stat().st_size - len(lines(directory)[-1]))
    write(directory, 1)
    assert [segment.first for segment in list_segments(directory)] == [1, 5]
    broken = records(directory)[3]
    assert (broken["action"], broken["seq"]) == ("audit.break", 5)
    (finding,) = check(directory).findings
    assert finding.file == "main-000000000005.jsonl"
    assert "4 to 4, are missing" in finding.problem


def test_a_missing_head_ends_up_on_record(directory: Path) -> None:
    write(directory, 3)
    head_path(directory, "main").unlink()
    write(directory, 1)
    (finding,) = check(directory).findings
    assert "the writer itself found interference" in finding.problem


def test_leftovers_of_a_killed_process_are_cleared_away(directory: Path) -> None:
    write(directory, 1)
    (directory / ".main.head.0011223344556677").touch()
    write(directory, 1)
    assert not list(directory.glob(".*"))


class _BrokenKey:
    """A key whose holder is gone."""

    kid = "gone"
    algorithm = "ES256"

    def sign(self, data: bytes) -> bytes:
        raise AuditUnavailable(f"no signature for {len(data)} bytes")


def test_without_signatures_nothing_is_recorded(directory: Path) -> None:
    journal = Journal(directory, _BrokenKey(), trusted())
    with pytest.raises(AuditUnavailable, match="no signature"):
        journal.open()


def test_the_clock_stepping_back_changes_nothing_in_the_order(directory: Path) -> None:
    times = iter([NOON, NOON - 3600, NOON - 7200, NOON + 1, *[NOON - 9000.0] * 10])
    write(directory, [record(time=next(times)) for _ in range(4)], clock=lambda: next(times))
    assert [item["seq"] for item in records(directory)] == [1, 2, 3, 4, 5]
    assert check(directory).whole


def test_monotonic_deadlines_survive_a_wrong_wall_clock(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0  # far from where adding to it would round
    monkeypatch.setattr("broker.audit.journal.time.monotonic", lambda: now)
    journal = open_journal(directory, clock=lambda: 0.0)
    _write_once(journal)
    now += module.CHECKPOINT_SECONDS
    journal.tend()
    journal.abandon()
    assert records(directory)[-1]["action"] == "audit.checkpoint"
