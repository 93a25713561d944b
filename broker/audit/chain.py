"""Give each record its place in a writer's chain.

A record is one line of JSON. `prev` is the SHA-256 digest of the line before it, with its
newline (`sed -n 41p FILE | sha256sum` prints the `prev` of line 42), and 64 zeros in the first
record of a writer. `seq` counts a writer's records from 1 without gaps.
"""

from __future__ import annotations

from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from broker.audit.redaction import redact_principal, redact_text, safe_line
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 1
GENESIS: Final = "0" * 64
"""What the first record of a writer states as its predecessor's digest."""

_FIELDS: Final = AuditRecord._fields
_AGENT: Final = _FIELDS.index("agent")
_METHOD: Final = _FIELDS.index("method")
_RISK: Final = _FIELDS.index("risk")
_PRINCIPAL: Final = frozenset({"agent", "issuer", "subject"})
_CACHED_FRAGMENTS: Final = 2048


class Position(NamedTuple):
    """A writer's last record: its sequence number (0: none) and its line's digest in hex."""

    seq: int
    hash: str


START: Final = Position(0, GENESIS)
"""Where a writer is before its first record."""


class Chain:
    """Turn records into the lines of one writer's chain.

    Many records of a grant share most of their fields, so these are cleaned and encoded once.
    Strings pass redaction and are made printable here, whoever wrote them; the path alone is
    taken as redacted already.
    """

    def __init__(self, writer: str, position: Position = START) -> None:
        self.writer: Final = writer
        self.position = position
        self._start: Final = f'{{"v":{VERSION},"writer":"{writer}","seq":'
        self._fragments: Final[dict[tuple[Any, ...], str]] = {}
        self._second: int | None = None
        self._second_text = ""

    @property
    def position(self) -> Position:
        """The last record; set it to go back there."""
        return Position(self._seq, self._hash)

    @position.setter
    def position(self, position: Position) -> None:
        self._seq, self._hash = position

    def add(self, record: AuditRecord) -> bytes:
        """Return the record's line and move on to the next place."""
        fields: dict[str, object] = {
            "action": record.action,
            "phase": record.phase,
            "operation": record.operation,
            "decision": record.decision,
        }
        if (method := record.method) is not None:
            fields["method"] = method if method.isprintable() else safe_line(method)
        if (path := record.path) is not None:
            fields["path"] = path if path.isprintable() else safe_line(path)
        if (status := record.status) is not None:
            fields["status"] = status
        if (latency_ms := record.latency_ms) is not None:
            fields["latency_ms"] = latency_ms
        if (bytes_in := record.bytes_in) is not None:
            fields["bytes_in"] = bytes_in
        if (bytes_out := record.bytes_out) is not None:
            fields["bytes_out"] = bytes_out
        return self._line(
            record.time,
            orjson.dumps(fields).decode()[1:-1]
            + self._fragment(_AGENT, record[_AGENT:_METHOD])
            + self._fragment(_RISK, record[_RISK:]),
        )

    def add_own(self, time: float, fields: Mapping[str, Any]) -> bytes:
        """Return the line of a record of the trail's own, such as a checkpoint."""
        return self._line(time, orjson.dumps(dict(fields)).decode()[1:-1])

    def timestamp(self, time: float) -> str:
        """Return seconds since the epoch as RFC 3339, UTC, with microseconds."""
        second = int(time // 1)
        if second != self._second:
            self._second_text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
            self._second = second
        return f"{self._second_text}.{int((time - second) * 1e6):06d}Z"

    def _line(self, time: float, fields: str) -> bytes:
        seq = self._seq + 1
        line = (
            f'{self._start}{seq},"time":"{self.timestamp(time)}",{fields},"prev":"{self._hash}"}}\n'
        ).encode()
        self._seq, self._hash = seq, sha256(line).hexdigest()
        return line

    def _fragment(self, start: int, values: tuple[Any, ...]) -> str:
        fragment = self._fragments.get(values)
        if fragment is None:
            if len(self._fragments) >= _CACHED_FRAGMENTS:
                self._fragments.clear()
            fragment = self._fragments[values] = _encode(_FIELDS[start:], values)
        return fragment


def digest(line: bytes) -> str:
    """Return the SHA-256 digest, in hex, by which the next record refers to this line."""
    return sha256(line).hexdigest()


def _encode(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    fields = {
        name: _clean(name, value)
        for name, value in zip(names, values, strict=False)
        if value is not None
    }
    return "," + orjson.dumps(fields).decode()[1:-1] if fields else ""


def _clean(name: str, value: str) -> str:
    redact = redact_principal if name in _PRINCIPAL else redact_text
    return safe_line(redact(value))
