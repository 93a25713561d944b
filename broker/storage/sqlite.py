"""Durable records in one SQLite file, shared by every process of one machine.

Write-ahead logging with `synchronous=FULL`: what a method has returned from survives a crash
of the machine. Writers of several processes take turns by SQLite's own lock.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from broker.errors import StorageError
from broker.model import EnrolledKey, Grant
from broker.storage.committer import Committer
from broker.storage.leases import SqliteLeases
from broker.storage.schema import open_database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from broker.storage.base import ReplayClaim

REPLAY_MARGIN: Final = 2 * 3600
"""How long, in seconds, a replay claim outlives its proof: a wall clock that is set back by an
hour must not make a spent proof both valid and forgotten."""

GRANT_RETENTION: Final = 24 * 3600
"""How long, in seconds, an expired grant is kept, and a lease that is over; the audit trail
keeps their history."""

_PURGE_CHUNK: Final = 5_000
"""Rows per transaction when purging, so that others wait for milliseconds at most."""

_GRANT_COLUMNS: Final = (
    "jti, agent, issuer, subject, scopes, issued_at, expires_at, policy_version, client_id, "
    "task, reason, ancestors, actor, claims"
)
_INSERT_GRANT: Final = (
    f"INSERT INTO grants ({_GRANT_COLUMNS}) "  # noqa: S608 - a constant
    f"VALUES ({', '.join('?' * len(_GRANT_COLUMNS.split(',')))})"
)
_SELECT_GRANT: Final = f"SELECT {_GRANT_COLUMNS} FROM grants WHERE jti = ?"  # noqa: S608 - the same


class SqliteStorage:
    """Keep grants, replay claims, enrolled keys and leases in the SQLite database at `path`.

    Raises `ConfigurationError`, saying what to do, if there is no usable database to be had.
    """

    def __init__(self, path: Path) -> None:
        self._committer = Committer(open_database(path), path)
        self.leases = SqliteLeases(self._committer)

    async def save_grant(self, grant: Grant, claim: ReplayClaim | None = None) -> bool:
        """Store a grant and, in the same transaction, spend `claim`; False if it was spent."""

        def save(connection: sqlite3.Connection) -> bool:
            if claim is not None:
                spent = connection.execute(
                    "INSERT INTO replay_claims VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (_digest(claim), claim.until),
                )
                if spent.rowcount == 0:
                    return False
            connection.execute(_INSERT_GRANT, _grant_row(grant))
            return True

        return await self._committer.run(save, writes=True)

    async def grant(self, jti: str) -> Grant | None:
        """Return a grant, or None."""

        def read(connection: sqlite3.Connection) -> Grant | None:
            row = connection.execute(_SELECT_GRANT, (jti,)).fetchone()
            return None if row is None else _grant(row)

        return await self._committer.run(read)

    async def enrol(self, key: EnrolledKey) -> None:
        """Add a public key to a local agent; adding it again changes nothing.

        Raises `StorageError` if the key is another agent's: it could prove to be either.
        """

        def add(connection: sqlite3.Connection) -> None:
            query = "SELECT agent FROM enrolled_keys WHERE kid = ?"
            holder = connection.execute(query, (key.kid,)).fetchone()
            if holder is None:
                connection.execute(
                    "INSERT INTO enrolled_keys (kid, agent, public_jwk, enrolled_at) "
                    "VALUES (?, ?, ?, ?)",
                    (key.kid, key.agent, _json(key.public_jwk), key.enrolled_at),
                )
            elif holder != (key.agent,):
                raise StorageError(
                    f"key {key.kid} is enrolled for agent {holder[0]!r} already; make a new key "
                    f"pair for {key.agent!r}"
                )

        await self._committer.run(add, writes=True)

    async def enrolled_keys(self, agent: str | None = None) -> tuple[EnrolledKey, ...]:
        """Return an agent's enrolled keys, or everybody's, the oldest first."""

        def read(connection: sqlite3.Connection) -> tuple[EnrolledKey, ...]:
            rows = connection.execute(
                "SELECT agent, kid, public_jwk, enrolled_at FROM enrolled_keys "
                "WHERE agent = coalesce(?, agent) ORDER BY enrolled_at, kid",
                (agent,),
            )
            return tuple(EnrolledKey(a, kid, json.loads(jwk), at) for a, kid, jwk, at in rows)

        return await self._committer.run(read)

    async def unenrol(self, agent: str) -> int:
        """Remove an agent's keys; return how many there were."""

        def remove(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM enrolled_keys WHERE agent = ?", (agent,)
            ).rowcount

        return await self._committer.run(remove, writes=True)

    async def purge(self, now: float) -> int:
        """Forget replay claims, grants and leases that can no longer matter; return how many.

        Claims go `REPLAY_MARGIN` after their proof's end, grants and leases `GRANT_RETENTION`
        after theirs.
        """
        claims = await self._purge("replay_claims", "digest", "until", now - REPLAY_MARGIN)
        grants = await self._purge("grants", "jti", "expires_at", now - GRANT_RETENTION)
        leases = await self._purge("leases", "id", "ended_at", now - GRANT_RETENTION)
        return claims + grants + leases

    async def close(self) -> None:
        """Finish what is queued and release the store."""
        await self._committer.close()

    async def _purge(self, table: str, key: str, column: str, before: float) -> int:
        statement = (
            f"DELETE FROM {table} WHERE {key} IN "  # noqa: S608 - constants
            f"(SELECT {key} FROM {table} WHERE {column} < ? LIMIT {_PURGE_CHUNK})"
        )

        def remove(connection: sqlite3.Connection) -> int:
            return connection.execute(statement, (before,)).rowcount

        total = 0
        while removed := await self._committer.run(remove, writes=True):
            total += removed
        return total


def _digest(claim: ReplayClaim) -> bytes:
    """Name a proof; the issuer's length keeps the two parts apart, whatever they hold."""
    issuer = claim.issuer.encode()
    return hashlib.sha256(b"%d:%b%b" % (len(issuer), issuer, claim.token_id.encode())).digest()


def _grant_row(grant: Grant) -> tuple[Any, ...]:
    return (
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
        None if grant.actor is None else _json(grant.actor),
        _json(grant.claims),
    )


def _grant(row: tuple[Any, ...]) -> Grant:
    jti, agent, issuer, subject, scopes, issued_at, expires_at, version, client_id = row[:9]
    task, reason, ancestors, actor, claims = row[9:]
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


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), separators=(",", ":"))
