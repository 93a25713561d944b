from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit.journal import Journal, Rotation
from broker.audit.query import Event, Filter, Log, Pairing, Reader
from broker.audit.segment import list_segments, segment_path
from tests.broker.audit.trails import NOON, lines, open_journal, record, records, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    journal = open_journal(directory, rotation=Rotation(size=3000))
    yield journal
    journal.close()


def put(journal: Journal, *items: Any) -> None:
    journal.add(items)
    journal.commit()
    journal.tend()


def pair(operation: str, **changes: Any) -> tuple[Any, Any]:
    return (
        record(operation=operation, phase="intent", status=None, latency_ms=None, **changes),
        record(operation=operation, **changes),
    )


def operations(events: Iterable[Event]) -> list[Any]:
    return [event.fields.get("operation", event.fields["action"]) for event in events]


def test_writers_are_merged_by_time(directory: Path) -> None:
    write(directory, [record(time=NOON + n, operation=f"m{n}") for n in (0, 2, 4)])
    write(directory, [record(time=NOON + n, operation=f"c{n}") for n in (1, 3)], writer="cli")
    read = [item["operation"] for item in Reader(directory).read() if "operation" in item]
    assert read == ["m0", "c1", "m2", "c3", "m4"]


def test_order_within_a_writer_is_by_sequence_whatever_the_clock_did(directory: Path) -> None:
    times = [NOON, NOON - 500, NOON - 1000, NOON + 10]
    write(directory, [record(time=time, operation=f"m{n}") for n, time in enumerate(times)])
    write(directory, [record(time=NOON + 5, operation="c")], writer="cli")
    read = [item["operation"] for item in Reader(directory).read() if "operation" in item]
    assert read == ["m0", "m1", "m2", "c", "m3"]


def test_a_reader_yields_what_is_new_across_segments(directory: Path, journal: Journal) -> None:
    reader = Reader(directory)
    seen: list[int] = []
    for _ in range(20):
        put(journal, record(), record())
        seen += [item["seq"] for item in reader.read()]
    assert len(list_segments(directory)) > 3
    assert seen == list(range(1, len(records(directory)) + 1))
    assert list(reader.read()) == []


def test_a_new_writer_is_noticed(directory: Path, journal: Journal) -> None:
    reader = Reader(directory)
    put(journal, record())
    list(reader.read())
    write(directory, [record(operation="new")], writer="cli")
    assert "new" in [item.get("operation") for item in reader.read()]


def test_an_incomplete_line_waits_for_its_end(directory: Path, journal: Journal) -> None:
    reader = Reader(directory)
    put(journal, record())
    list(reader.read())
    put(journal, record(operation="late"))
    path = segment_path(directory, "main", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert list(reader.read()) == []
    path.write_bytes(whole)
    assert [item["operation"] for item in reader.read()] == ["late"]


def test_lines_that_are_no_records_are_passed_over(directory: Path) -> None:
    write(directory, 2)
    path = segment_path(directory, "main", 1)
    path.write_bytes(b"garbage\n[]\n" + path.read_bytes())
    assert [item["seq"] for item in Reader(directory).read()] == [1, 2, 3]


def test_the_end_alone_can_be_read(directory: Path, journal: Journal) -> None:
    for _ in range(20):
        put(journal, record())
    written = lines(directory)
    assert len(list_segments(directory)) > 2
    total = sum(map(len, written))
    for count in (1, 2, 7, len(written) - 1):
        exact = sum(map(len, written[-count:]))
        for window in (exact, exact + 1):
            reader = Reader(directory, window)
            assert len(list(reader.read())) == count
            assert not reader.exhaustive
    for window in (total, total + 1, 1 << 40):
        reader = Reader(directory, window)
        assert len(list(reader.read())) == len(written)
        assert reader.exhaustive


def test_intent_and_outcome_are_one_event(directory: Path) -> None:
    first, second = pair("one", time=NOON), pair("two", time=NOON + 1)
    write(directory, [first[0], second[0], second[1], first[1]])
    events = Log(directory, Filter()).history()
    assert operations(events) == ["one", "two"]
    assert events[0].intent is not None
    assert events[0].fields["status"] == 200
    assert events[0].fields["time"] == "2026-03-15T10:23:45.123456Z"


def test_events_stand_in_the_order_of_their_records_whatever_the_clock_did(
    directory: Path,
) -> None:
    items = [*pair("a", time=NOON), *pair("b", time=NOON - 900), pair("c", time=NOON - 1800)[0]]
    write(directory, items)
    assert operations(Log(directory, Filter()).history()) == ["a", "b", "c"]


def test_unpaired_each_record_is_an_event(directory: Path) -> None:
    write(directory, pair("one"))
    assert operations(Log(directory, Filter(), paired=False).history()) == [
        "one",
        "one",
        "audit.checkpoint",
    ]


def test_the_same_operation_of_two_writers_is_two(directory: Path) -> None:
    write(directory, pair("one")[:1])
    write(directory, pair("one")[1:], writer="cli")
    events = Log(directory, Filter()).history()
    assert sorted((e.intent is None, e.outcome is None) for e in events) == [
        (False, True),
        (True, False),
    ]


def test_an_intent_without_an_outcome_is_shown(directory: Path) -> None:
    write(directory, [pair("lost", time=NOON - 1)[0], *pair("done")])
    events = Log(directory, Filter()).history()
    assert operations(events) == ["lost", "done"]
    assert events[0].outcome is None


@pytest.mark.parametrize("limit", [1, 2, 5, 13, 40, 1000])
def test_the_last_events_are_found_from_the_end(
    directory: Path, journal: Journal, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.query._FIRST_WINDOW", 1000)
    monkeypatch.setattr("broker.audit.query._GROWTH", 2)
    for number in range(40):
        put(journal, *pair(f"{number}", time=NOON + number))
    log = Log(directory, Filter(service="stripe"))
    assert operations(log.history(limit)) == [str(n) for n in range(40)][-limit:]


def test_what_happens_is_followed_across_segments(directory: Path, journal: Journal) -> None:
    put(journal, *pair("before"))
    log = Log(directory, Filter(service="stripe"))
    assert operations(log.history(10)) == ["before"]
    seen: list[Any] = []
    for number in range(20):
        put(journal, *pair(f"{number}"))
        seen += operations(log.news())
    assert seen == [str(number) for number in range(20)]
    assert log.news() == []


def test_a_long_wait_for_an_outcome_is_shown_once_and_then_the_outcome(
    directory: Path, journal: Journal
) -> None:
    log = Log(directory, Filter(service="stripe"))
    intent, outcome = pair("slow")
    put(journal, intent)
    assert log.news(patience=60) == []
    assert [event.outcome for event in log.news(patience=0)] == [None]
    assert log.news(patience=0) == []
    put(journal, outcome)
    (event,) = log.news(patience=0)
    assert event.intent is not None
    assert event.outcome is not None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), ["a", "b", "c"]),
        (Filter(agent="release-bot"), ["a", "c"]),
        (Filter(agent="release"), []),
        (Filter(service="github"), ["b"]),
        (Filter(decision="deny"), ["b"]),
        (Filter(decision="allow"), ["a", "c"]),
        (Filter(since="2026-03-15T10:23:46"), ["b", "c"]),
        (Filter(until="2026-03-15T10:23:46"), ["a"]),
        (Filter(since="2026-03-15T10:23:46", until="2026-03-15T10:23:47"), ["b"]),
        (Filter(agent="release-bot", service="github"), []),
    ],
)
def test_filters(directory: Path, wanted: Filter, found: list[str]) -> None:
    write(
        directory,
        [
            *pair("a", time=NOON),
            record(operation="b", time=NOON + 1, agent="x", service="github", decision="deny"),
            *pair("c", time=NOON + 2),
        ],
    )
    events = Log(directory, wanted).history()
    assert operations(events) == found


def test_pairing_forgets_what_it_has_joined() -> None:
    pairing = Pairing()
    item = {"writer": "main", "operation": "x", "phase": "intent"}
    for _ in range(3):
        assert pairing.add(item) is None
        joined = pairing.add({**item, "phase": "outcome"})
        assert joined is not None
        assert joined.intent == item
    assert pairing.unfinished() == []


def test_a_trail_that_vanishes_raises(directory: Path) -> None:
    write(directory, 1)
    log = Log(directory, Filter())
    log.history()
    shutil.rmtree(directory)
    with pytest.raises(OSError, match="No such file"):
        log.news()
