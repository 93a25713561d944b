"""Trails to test with: a key, records, a journal, and what is on disk afterwards."""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec

from broker.audit.journal import Journal
from broker.audit.segment import list_segments, read_lines
from broker.audit.statement import TrustedKeys
from broker.audit.verify import Report, verify
from broker.keys.jwk import verify_es256
from broker.keys.signing import FileSigningKey
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from broker.audit.head import Anchor

NOON = 1_773_570_225.123456  # 2026-03-15T10:23:45.123456Z
_numbers = count(1)


@cache
def _key(number: int) -> FileSigningKey:
    del number
    return FileSigningKey(ec.generate_private_key(ec.SECP256R1()))


def signing_key(number: int = 0) -> FileSigningKey:
    """The same key for the same number, for the whole run."""
    return _key(number)


def trusted(*numbers: int) -> TrustedKeys:
    keys = [signing_key(number) for number in numbers or (0,)]
    return TrustedKeys(tuple(key.public_jwk() for key in keys), verify_es256)


def record(**changes: Any) -> AuditRecord:
    """The outcome of a proxied request, but for the changes."""
    fields: dict[str, Any] = {
        "time": NOON,
        "action": "proxy.request",
        "phase": "outcome",
        "operation": f"op-{next(_numbers)}",
        "decision": "allow",
        "agent": "release-bot",
        "issuer": "https://issuer.example.com",
        "subject": "repo:acme/app:ref:refs/heads/main",
        "service": "stripe",
        "scope": "stripe.read",
        "rule": "GET /v1/**",
        "method": "GET",
        "path": "/v1/charges",
        "status": 200,
        "latency_ms": 142.0,
    }
    return AuditRecord(**(fields | changes))


def open_journal(directory: Path, *, key: int = 0, **options: Any) -> Journal:
    options.setdefault("clock", lambda: NOON)
    journal = Journal(directory, signing_key(key), trusted(key), **options)
    journal.open()
    return journal


def write(directory: Path, records: Iterable[AuditRecord] | int, **options: Any) -> None:
    """Write records as a whole run of the broker would, each made durable by itself."""
    journal = open_journal(directory, **options)
    for item in [record() for _ in range(records)] if isinstance(records, int) else records:
        journal.add([item])
        journal.commit()
        journal.tend()
    journal.close()


def lines(directory: Path, writer: str | None = None) -> list[bytes]:
    return [
        line for segment in list_segments(directory, writer) for line in read_lines(segment.path)
    ]


def records(directory: Path, writer: str | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines(directory, writer)]


def check(directory: Path, anchors: Iterable[Anchor] = (), *keys: int) -> Report:
    return verify(directory, trusted(*keys), anchors)
