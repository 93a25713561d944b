"""Find out where a writer's chain ends, after whatever ended the writer.

A process that is killed leaves up to a second of records behind its head and, at worst, one
incomplete line that nobody was told is durable. Anything else is interference: it is left as
it is, for `broker audit verify` to find, and the chain goes on in a new segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from broker.audit.chain import START, VERSION, Position, digest
from broker.audit.head import BadHead, Head, read_head
from broker.audit.segment import list_segments, read_lines

if TYPE_CHECKING:
    from pathlib import Path

    from broker.audit.segment import SegmentName
    from broker.audit.statement import TrustedKeys


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a writer goes on.

    `segment` is the file to append to after its first `size` bytes, None for a new one.
    `torn` is the number of bytes of an incomplete line that follow them, `unsigned` the number
    of records behind the head; `broken` says what cannot be the doing of the writer.
    """

    position: Position
    segment: Path | None = None
    size: int = 0
    torn: int = 0
    unsigned: int = 0
    broken: str | None = None


def resume(directory: Path, writer: str, trusted: TrustedKeys) -> Resumption:
    """Read a writer's chain from its head to its end. Raises OSError."""
    segments = list_segments(directory, writer)
    head = read_head(directory, writer, trusted)
    if isinstance(head, Head):
        if head.seq == 0 and not segments:
            return Resumption(START)
        return _from_head(segments, head)
    if head is None and not segments:
        return Resumption(START)
    problem = head.problem if isinstance(head, BadHead) else "it is missing"
    return Resumption(_last_readable(segments, writer), broken=f"the head is no help: {problem}")


def link_problem(record: object, writer: str, position: Position) -> str | None:
    """Return why a parsed line cannot follow `position` in the writer's chain, or None."""
    if not isinstance(record, dict) or record.get("v") != VERSION:
        return f"it is not a record of version {VERSION}"
    if record.get("writer") != writer:
        return f"it belongs to another writer, {record.get('writer')!r}"
    if record.get("seq") != position.seq + 1:
        return f"its sequence number is {record.get('seq')!r}, and not {position.seq + 1}"
    if record.get("prev") != position.hash:
        return "its `prev` is not the digest of the record before it"
    return None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record on a line, or None if it is not a JSON object."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _from_head(segments: list[SegmentName], head: Head) -> Resumption:
    position = Position(head.seq, head.hash)
    later = [segment for segment in segments if segment.path.name >= head.segment]
    if not later or later[0].path.name != head.segment:
        return Resumption(position, broken=f"segment {head.segment} is missing")
    if later[0].path.stat().st_size < head.offset:
        return Resumption(
            position, broken=f"{head.segment} was cut: record {head.seq} was durable in it"
        )
    size, torn = head.offset, 0
    for segment in later:
        if torn or segment.path.name != head.segment:
            if torn or segment.first != position.seq + 1:
                broken = f"{segment.path.name} does not follow record {position.seq}"
                return Resumption(position, broken=broken)
            size = 0
        for line in read_lines(segment.path, size):
            if not line.endswith(b"\n"):
                torn = len(line)
                continue
            if problem := link_problem(parse_line(line), head.writer, position):
                broken = f"what follows record {position.seq} is no record: {problem}"
                return Resumption(position, broken=broken)
            position = Position(position.seq + 1, digest(line))
            size += len(line)
    unsigned = position.seq - head.seq
    if head.closed and (unsigned or torn):
        return Resumption(position, broken="something was added after the writer had closed")
    return Resumption(position, later[-1].path, size, torn, unsigned)


def _last_readable(segments: list[SegmentName], writer: str) -> Position:
    """Return the last record of the last segment that has one, on its own word."""
    for segment in reversed(segments):
        position = None
        for line in read_lines(segment.path):
            record = parse_line(line) if line.endswith(b"\n") else None
            if record and record.get("writer") == writer and isinstance(record.get("seq"), int):
                position = Position(record["seq"], digest(line))
        if position:
            return position
    return START
