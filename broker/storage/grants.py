"""The grants of the SQLite store, as functions on a connection within a transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from broker.model import Grant, Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

_COLUMNS: Final = (
    "jti, agent, issuer, subject, scopes, issued_at, expires_at, policy_version, client_id, "
    "task, reason, ancestors, actor, claims"
)
_INSERT: Final = (
    f"INSERT INTO grants ({_COLUMNS}) "  # noqa: S608 - a constant
    f"VALUES ({', '.join('?' * len(_COLUMNS.split(',')))})"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM grants"  # noqa: S608 - the same
_SESSIONS: Final = f"SELECT {_COLUMNS}, requests, used_at FROM grants"  # noqa: S608 - the same

_HOLDS: Final = "instr(' ' || {} || ' ', ' ' || ? || ' ')"


def insert(connection: sqlite3.Connection, grant: Grant) -> None:
    """Store a grant."""
    row = (
        grant.jti,
        grant.agent,
        grant.issuer,
        grant.subject,
        " ".join(grant.scopes),
        grant.issued_at,
        grant.expires_at,
        grant.policy_version,
        grant.client_id,
        grant.task,
        grant.reason,
        " ".join(grant.ancestors),
        None if grant.actor is None else as_json(grant.actor),
        as_json(grant.claims),
    )
    connection.execute(_INSERT, row)


def find(connection: sqlite3.Connection, jti: str) -> Grant | None:
    """Return a grant, or None."""
    row = connection.execute(f"{_SELECT} WHERE jti = ?", (jti,)).fetchone()
    return None if row is None else _grant(row)


def live(connection: sqlite3.Connection, now: float) -> Iterator[Grant]:
    """Return the grants that have not expired, the oldest first; some may be revoked."""
    return _live(connection, now, "1")


def live_of_line(connection: sqlite3.Connection, now: float, jti: str) -> Iterator[Grant]:
    """Return a grant, if it has not expired, and those that descend from it."""
    return _live(connection, now, f"(jti = ? OR {_HOLDS.format('ancestors')})", jti, jti)


def live_of_agent(connection: sqlite3.Connection, now: float, agent: str) -> Iterator[Grant]:
    """Return the grants of an agent that have not expired, and those in which anybody acts."""
    return _live(connection, now, "(agent = ? OR actor IS NOT NULL)", agent)


def live_of_scope(connection: sqlite3.Connection, now: float, scope: str) -> Iterator[Grant]:
    """Return the grants of a scope that have not expired, and those that descend from any."""
    return _live(connection, now, f"({_HOLDS.format('scopes')} OR ancestors != '')", scope)


def sessions(connection: sqlite3.Connection, now: float) -> Iterator[Session]:
    """Return the grants that have not expired, with their use; some may be revoked."""
    rows = connection.execute(
        f"{_SESSIONS} WHERE expires_at > ? ORDER BY issued_at, jti",
        (now,),
    )
    return (Session(_grant(row), row[-2], row[-1]) for row in rows)


def count_use(connection: sqlite3.Connection, jti: str, requests: int, used_at: float) -> None:
    """Add to a grant's use; of one that is not known there is nothing to note."""
    connection.execute(
        "UPDATE grants SET requests = requests + ?, used_at = max(coalesce(used_at, 0), ?) "
        "WHERE jti = ?",
        (requests, used_at, jti),
    )


def as_json(value: Mapping[str, Any]) -> str:
    """Return a value as it is stored."""
    return json.dumps(dict(value), separators=(",", ":"))


def _live(
    connection: sqlite3.Connection, now: float, condition: str, *values: str
) -> Iterator[Grant]:
    query = f"{_SELECT} WHERE expires_at > ? AND {condition} ORDER BY issued_at, jti"
    return map(_grant, connection.execute(query, (now, *values)))


def _grant(row: tuple[Any, ...]) -> Grant:
    jti, agent, issuer, subject, scopes, issued_at, expires_at, version, client_id = row[:9]
    task, reason, ancestors, actor, claims = row[9:14]
    return Grant(
        jti=jti,
        agent=agent,
        issuer=issuer,
        subject=subject,
        scopes=tuple(scopes.split()),
        issued_at=issued_at,
        expires_at=expires_at,
        policy_version=version,
        client_id=client_id,
        task=task,
        reason=reason,
        ancestors=tuple(ancestors.split()),
        actor=None if actor is None else json.loads(actor),
        claims=json.loads(claims),
    )
