"""Read a trail: all writers' records by time, from the segments alone, while they grow.

Order within a writer is that of its sequence numbers, whatever the clock did; writers are
merged by time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import merge
from itertools import count
from operator import attrgetter, itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from broker.audit.recovery import parse_line
from broker.audit.segment import list_segments, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.audit.segment import SegmentName


Record = dict[str, Any]

_FIRST_WINDOW: Final = 1 << 20
_GROWTH: Final = 8


@dataclass(frozen=True, slots=True)
class Event:
    """What happened: an operation's intent and outcome, either of which may be missing.

    `place` orders events by their first record, as read.
    """

    intent: Record | None
    outcome: Record | None
    place: int = 0

    @property
    def fields(self) -> Record:
        """Everything known of it; `time` is when it began."""
        fields = {**(self.intent or {}), **(self.outcome or {})}
        if self.intent is not None:
            fields["time"] = self.intent.get("time")
        return fields


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records or events to show; times are RFC 3339 in UTC, `until` not included."""

    agent: str | None = None
    service: str | None = None
    decision: str | None = None
    since: str | None = None
    until: str | None = None

    def admits(self, fields: Record) -> bool:
        """Say whether a record or event is to be shown."""
        time = str(fields.get("time", ""))
        return (
            self.agent in {None, fields.get("agent")}
            and self.service in {None, fields.get("service")}
            and self.decision in {None, fields.get("decision")}
            and (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
        )


class Reader:
    """Read a trail's records, and later those that have come since.

    `window` is how many of each writer's last bytes to begin with, None for all; `exhaustive`
    says whether that was all there is.
    """

    def __init__(self, directory: Path, window: int | None = None) -> None:
        self._directory: Final = directory
        self._window: Final = window
        self._places: Final[dict[str, tuple[int, int]]] = {}
        self.exhaustive = True

    def read(self) -> Iterator[Record]:
        """Yield the records of complete lines that were not yielded before. Raises OSError."""
        by_writer: dict[str, list[SegmentName]] = {}
        for segment in list_segments(self._directory):
            by_writer.setdefault(segment.writer, []).append(segment)
        streams = [self._read_writer(segments) for segments in by_writer.values()]
        for _, record in merge(*streams, key=itemgetter(0)):
            yield record

    def _read_writer(self, segments: list[SegmentName]) -> Iterator[tuple[str, Record]]:
        writer = segments[0].writer
        if writer not in self._places:
            self._places[writer] = self._start(segments)
        latest = ""
        for segment in segments:
            first, offset = self._places[writer]
            if segment.first < first:
                continue
            if segment.first > first:
                offset = 0
            for line in read_lines(segment.path, offset):
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                self._places[writer] = (segment.first, offset)
                record = parse_line(line)
                if record is not None:
                    # A clock that steps back must not put a writer's records out of order.
                    latest = max(latest, str(record.get("time", "")))
                    yield latest, record

    def _start(self, segments: list[SegmentName]) -> tuple[int, int]:
        """Return the segment and the offset in it at which a writer's window begins."""
        left = self._window
        for segment in reversed(segments):
            size = segment.path.stat().st_size
            if left is not None and size > left:
                self.exhaustive = False
                # From the byte before: the window may begin where a line does.
                offset = size - left - 1
                return segment.first, offset + len(next(read_lines(segment.path, offset)))
            left = None if left is None else left - size
        return segments[0].first, 0


class Pairing:
    """Join intents with their outcomes."""

    def __init__(self) -> None:
        self._open: Final[dict[tuple[str, str], tuple[int, float, Record]]] = {}
        self._places: Final = count()

    def add(self, record: Record) -> Event | None:
        """Return the event that a record completes, or None for an intent."""
        place = next(self._places)
        if "operation" not in record:
            return Event(None, record, place)
        key = (str(record.get("writer")), str(record["operation"]))
        if record.get("phase") == "intent":
            self._open[key] = place, monotonic(), record
            return None
        place, _, intent = self._open.pop(key, (place, 0.0, None))
        return Event(intent, record, place)

    def unfinished(self, age: float = 0.0) -> list[Event]:
        """Return the intents that have waited `age` seconds for their outcome."""
        latest = monotonic() - age
        return [
            Event(intent, None, place)
            for place, since, intent in self._open.values()
            if since <= latest
        ]


class Log:
    """A trail as its readers see it: the last events that a filter admits, then each new one.

    Checkpoints, which say nothing about agents, are left out. With `paired` false each record
    is an event of its own, and none is left out.
    """

    def __init__(self, directory: Path, wanted: Filter, *, paired: bool = True) -> None:
        self._directory: Final = directory
        self._wanted: Final = wanted
        self._paired: Final = paired
        self._reader = Reader(directory)
        self._pairing = Pairing()
        self._shown: set[str] = set()

    def history(self, limit: int | None = None) -> list[Event]:
        """Return the last `limit` events, None for all, by their first record. Raises OSError."""
        window = None if limit is None else _FIRST_WINDOW
        while True:
            self._reader, self._pairing = Reader(self._directory, window), Pairing()
            events = deque(self._complete(), maxlen=limit)
            if window is None or self._reader.exhaustive or len(events) == limit:
                break
            window *= _GROWTH
        found = [*events, *self._unfinished()]
        found.sort(key=attrgetter("place"))
        return found if limit is None else found[-limit:]

    def news(self, patience: float = 2.0) -> list[Event]:
        """Return what has been completed since, and intents that wait longer than `patience`."""
        return [*self._complete(), *self._unfinished(patience)]

    def _complete(self) -> Iterator[Event]:
        for record in self._reader.read():
            if not self._paired:
                event: Event | None = Event(None, record)
            elif record.get("action") == "audit.checkpoint":
                continue
            else:
                event = self._pairing.add(record)
            if event is not None and self._wanted.admits(event.fields):
                yield event

    def _unfinished(self, age: float = 0.0) -> Iterator[Event]:
        """Yield each intent without an outcome once."""
        for event in self._pairing.unfinished(age):
            operation = str(event.fields["operation"])
            if operation not in self._shown and self._wanted.admits(event.fields):
                self._shown.add(operation)
                yield event
