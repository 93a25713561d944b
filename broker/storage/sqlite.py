"""Durable records in one SQLite file, shared by every process of one machine.

Write-ahead logging with `synchronous=FULL`: what a method has returned from survives a crash
of the machine. Writers of several processes take turns by SQLite's own lock.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.errors import StorageError
from broker.model import EnrolledKey
from broker.storage import grants
from broker.storage.admin_tokens import SqliteAdminTokens
from broker.storage.commits import Commits
from broker.storage.committer import Committer
from broker.storage.ended import all_revoked, is_ended
from broker.storage.leases import SqliteLeases
from broker.storage.policies import SqlitePolicies
from broker.storage.revocations import SqliteRevocations
from broker.storage.schema import open_database, touch
from broker.storage.states import SqliteStates
from broker.storage.totals import SqliteTotals

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from broker.model import Grant, Session
    from broker.storage.base import ReplayClaim, Saved, Use

REPLAY_MARGIN: Final = 2 * 3600
"""How long, in seconds, a replay claim outlives its proof: a wall clock that is set back by an
hour must not make a spent proof both valid and forgotten."""

GRANT_RETENTION: Final = 24 * 3600
"""How long, in seconds, an expired grant is kept, and a lease that is over; the audit trail
keeps their history."""

_PURGE_CHUNK: Final = 5_000
"""Rows per transaction when purging, so that others wait for milliseconds at most."""


class SqliteStorage:
    """Keep all durable records in the SQLite database at `path`.

    Raises `ConfigurationError`, saying what to do, if there is no usable database to be had.
    """

    def __init__(self, path: Path) -> None:
        self._committer = Committer(open_database(path), path)
        self._commits = Commits(path)
        self.leases = SqliteLeases(self._committer)
        self.states = SqliteStates(self._committer)
        self.totals = SqliteTotals(self._committer)
        self.revocations = SqliteRevocations(
            self._committer, path.with_suffix(".revocations"), self._commits
        )
        self.policies = SqlitePolicies(self._committer, self._commits)
        self.admin_tokens = SqliteAdminTokens(self._committer)

    async def save_grant(self, grant: Grant, claim: ReplayClaim | None = None) -> Saved:
        """Store a grant and, in the same transaction, spend `claim`."""

        def save(connection: sqlite3.Connection) -> Saved:
            if is_ended(connection, grant.line, grant):
                return "revoked"
            if claim is not None and not _spend(connection, claim):
                return "spent"
            grants.insert(connection, grant)
            return "saved"

        return await self._committer.run(save, writes=True)

    async def is_spent(self, claim: ReplayClaim) -> bool:
        """Say whether a claim has been spent."""

        def look(connection: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM replay_claims WHERE digest = ?"
            return connection.execute(query, (_digest(claim),)).fetchone() is not None

        return await self._committer.run(look)

    async def spend(self, claim: ReplayClaim) -> bool:
        """Spend a claim by itself; False if it was spent."""
        return await self._committer.run(partial(_spend, claim=claim), writes=True)

    async def grant(self, jti: str) -> Grant | None:
        """Return a grant, or None."""
        return await self._committer.run(partial(grants.find, jti=jti))

    async def sessions(self, now: float) -> tuple[Session, ...]:
        """Return the grants that are good at `now`, the oldest first, with their use."""

        def read(connection: sqlite3.Connection) -> tuple[Session, ...]:
            revoked = all_revoked(connection)
            found = grants.sessions(connection, now)
            return tuple(one for one in found if not revoked.covers(one.grant))

        return await self._committer.run(read)

    async def note_use(self, uses: Mapping[str, Use]) -> None:
        """Add to the use of grants, by their jtis."""

        def note(connection: sqlite3.Connection) -> None:
            for jti, use in uses.items():
                grants.count_use(connection, jti, use.requests, use.used_at)

        await self._committer.run(note, writes=True)

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
                    (key.kid, key.agent, grants.as_json(key.public_jwk), key.enrolled_at),
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
        """Forget what matters no more of all that is stored; return how much that was.

        Claims go `REPLAY_MARGIN` after their proof's end, the others `GRANT_RETENTION` after
        theirs.
        """
        claims = await self._purge("replay_claims", "digest", "until", now - REPLAY_MARGIN)
        over = await self._purge("grants", "jti", "expires_at", now - GRANT_RETENTION)
        leases = await self._purge("leases", "id", "ended_at", now - GRANT_RETENTION)
        ended = await self._purge("revocations", "number", "until", now - GRANT_RETENTION)
        totals = await self._purge("limit_totals", "key", "until", now - GRANT_RETENTION)
        return claims + over + leases + ended + totals

    async def check(self) -> str | None:
        """Read something; say why nothing can be written, where the last attempt failed."""
        self._commits.latest()
        await self.grant("")
        if self._committer.unwritable is not None:
            with suppress(StorageError):
                await self._committer.run(touch, writes=True)
        return self._committer.unwritable

    async def close(self) -> None:
        """Finish what is queued and release the store."""
        self._commits.close()
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


def _spend(connection: sqlite3.Connection, claim: ReplayClaim) -> bool:
    done = connection.execute(
        "INSERT INTO replay_claims VALUES (?, ?) ON CONFLICT DO NOTHING",
        (_digest(claim), claim.until),
    )
    return done.rowcount > 0


def _digest(claim: ReplayClaim) -> bytes:
    """Name a proof; the issuer's length keeps the two parts apart, whatever they hold."""
    issuer = claim.issuer.encode()
    return hashlib.sha256(b"%d:%b%b" % (len(issuer), issuer, claim.token_id.encode())).digest()
