"""Give each record its place in a writer's chain.

A record is one line of JSON. `prev` is the SHA-256 digest of the line before it, with its
newline (`sed -n 41p FILE | sha256sum` prints the `prev` of line 42), and 64 zeros in the first
record of a writer. `seq` counts a writer's records from 1 without gaps.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from broker.audit.redaction import redact_principal, redact_text, safe_line
from broker.model import AuditRecord
from broker.repeated import RepeatedRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 1
GENESIS: Final = "0" * 64
"""What the first record of a writer states as its predecessor's digest."""

_CHANGING: Final = frozenset(
    {"time", "operation", "path", "status", "latency_ms", "bytes_in", "bytes_out"}
)
_LASTING: Final = tuple(name for name in AuditRecord._fields if name not in _CHANGING)
"""What many records of a grant have in common."""

_PRINCIPAL: Final = frozenset({"agent", "issuer", "subject"})
_CACHED: Final = 2048
_CACHED_LENGTH: Final = 256


class Position(NamedTuple):
    """A writer's last record: its sequence number (0: none) and its line's digest in hex."""

    seq: int
    hash: str


START: Final = Position(0, GENESIS)
"""Where a writer is before its first record."""


class Chain:
    """Turn records into the lines of one writer's chain.

    What many records of a grant share is cleaned and encoded once, and so is a path; what a
    request has in common with the last one like it, path and all, is kept with its template.
    Strings pass redaction and are made printable here, whoever wrote them; the path alone is
    taken as redacted already.
    """

    def __init__(self, writer: str, position: Position = START) -> None:
        self.writer: Final = writer
        self.position = position
        self._start: Final = f'{{"v":{VERSION},"writer":"{writer}","seq":'
        self._lasting: Final[dict[tuple[Any, ...], str]] = {}
        self._paths: Final[dict[str, str]] = {}
        self._second: float | None = None
        self._second_text = ""

    @property
    def position(self) -> Position:
        """The last record; set it to go back there."""
        return Position(self._seq, self._hash)

    @position.setter
    def position(self, position: Position) -> None:
        self._seq, self._hash = position

    def add(self, record: AuditRecord | RepeatedRecord) -> bytes:
        """Return the record's line and move on to the next place."""
        time, operation, status = record.time, record.operation, record.status
        latency_ms, bytes_in, bytes_out = record.latency_ms, record.bytes_in, record.bytes_out
        if isinstance(record, RepeatedRecord):
            record.written = True
            template = record.template
            common = template.encoded
            if common is None:
                common = template.encoded = self._common(template.record)
        else:
            common = self._common(record)
        own: dict[str, object] = {"operation": operation}
        if status is not None:
            own["status"] = status
        if latency_ms is not None:
            own["latency_ms"] = latency_ms
        if bytes_in is not None:
            own["bytes_in"] = bytes_in
        if bytes_out is not None:
            own["bytes_out"] = bytes_out
        return self._line(time, f"{common},{orjson.dumps(own)[1:-1].decode()}")

    def _common(self, record: AuditRecord) -> str:
        """Return what the record shares with others: all but what is its own, and its place."""
        # Taken apart at once: by name, each field would cost as much as all of them do so.
        # fmt: off
        (
            _, action, phase, _, decision, agent, issuer, subject, grant, task, reason,
            service, scope, rule, method, path, _, _, _, _,
            risk, policy_version, source_address, detail,
        ) = record
        lasting = (
            action, phase, decision, agent, issuer, subject, grant, task, reason,
            service, scope, rule, method, risk, policy_version, source_address, detail,
        )
        # fmt: on
        fields = self._lasting.get(lasting) or self._encode_lasting(lasting)
        if path is None:
            return fields
        return fields + (self._paths.get(path) or self._encode_path(path))

    def add_own(self, time: float, fields: Mapping[str, Any]) -> bytes:
        """Return the line of a record of the trail's own, such as a checkpoint."""
        return self._line(time, orjson.dumps(dict(fields)).decode()[1:-1])

    def timestamp(self, time: float) -> str:
        """Return seconds since the epoch as RFC 3339, UTC, with microseconds."""
        second = time // 1
        if second != self._second:
            self._second_text = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second))
            self._second = second
        digits = str(int((1 + time - second) * 1e6))  # a 1, and the six that are wanted
        return f"{self._second_text}{digits[1:]}Z"

    def _line(self, time: float, fields: str) -> bytes:
        seq = self._seq + 1
        line = (
            f'{self._start}{seq},"time":"{self.timestamp(time)}",{fields},"prev":"{self._hash}"}}\n'
        ).encode()
        self._seq, self._hash = seq, sha256(line).hexdigest()
        return line

    def _encode_lasting(self, values: tuple[Any, ...]) -> str:
        fields = {
            name: _clean(name, value) if len(value) <= _CACHED_LENGTH else _clean_anew(name, value)
            for name, value in zip(_LASTING, values, strict=True)
            if value is not None
        }
        return _remember(self._lasting, values, orjson.dumps(fields).decode()[1:-1])

    def _encode_path(self, path: str) -> str:
        text = orjson.dumps({"path": safe_line(path)}).decode()[1:-1]
        return _remember(self._paths, path, f",{text}")


def digest(line: bytes) -> str:
    """Return the SHA-256 digest, in hex, by which the next record refers to this line."""
    return sha256(line).hexdigest()


def _remember(known: dict[Any, str], key: object, text: str) -> str:
    if len(known) >= _CACHED:
        known.clear()
    known[key] = text
    return text


def _clean_anew(name: str, value: str) -> str:
    if name == "method":
        return safe_line(value)
    redact = redact_principal if name in _PRINCIPAL else redact_text
    return safe_line(redact(value))


# Of a new grant's fields, all but a few say what those of others have said.
_clean = lru_cache(maxsize=_CACHED)(_clean_anew)
