"""The leases of the SQLite store: one row each, moved from state to state by compare and set."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from broker.model import Lease
from broker.storage.ended import is_ended

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from broker.model import LeaseStanding, LeaseState
    from broker.storage.committer import Committer

_COLUMNS: Final = (
    "id, grant_jti, ancestors, agent, service, scope, provider, config, state, created_at, "
    "grant_ends_at, expires_at, due_at, handle, attempts, problem, ended_at, delivery"
)
_LIVE: Final = "due_at IS NOT NULL"
_RELEASED: Final = "claimed_by = NULL, claimed_until = 0"


class SqliteLeases:
    """Keep leases (`broker.storage.base.LeaseStore`) in a database that others write to as well."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def open(self, lease: Lease, owner: str, until: float, most: int) -> bool:
        """Store an intent that `owner` works on until then; False if `most` such are not over."""

        def store(connection: sqlite3.Connection) -> bool:
            (live,) = connection.execute(
                f"SELECT count(*) FROM leases WHERE {_LIVE} AND delivery = ? AND id IN "  # noqa: S608 - constants
                "(SELECT lease FROM lease_lineage WHERE jti = ?)",
                (lease.delivery, lease.grant),
            ).fetchone()
            if live >= most:
                return False
            row = (*_row(lease), owner, until)
            connection.execute(
                f"INSERT INTO leases ({_COLUMNS}, claimed_by, claimed_until) "  # noqa: S608 - same
                f"VALUES ({', '.join('?' * len(row))})",
                row,
            )
            connection.executemany(
                "INSERT INTO lease_lineage VALUES (?, ?)",
                [(jti, lease.id) for jti in {lease.grant, *lease.ancestors}],
            )
            return True

        return await self._committer.run(store, writes=True)

    async def reserve(self, lease: str, owner: str, handle: bytes) -> bool:
        """Keep the handle of what is about to be minted; False if it must not be any more."""
        return await self._change(
            "handle = ? WHERE id = ? AND claimed_by = ? AND state = 'intent'",
            (handle, lease, owner),
        )

    async def minted(
        self, lease: str, handle: bytes | None, expires_at: float, now: float
    ) -> LeaseState:
        """Keep the handle of what exists now; return `minted`, or `revoking`."""

        def store(connection: sqlite3.Connection) -> LeaseState:
            state: LeaseState
            line = connection.execute("SELECT jti FROM lease_lineage WHERE lease = ?", (lease,))
            good = not is_ended(connection, [jti for (jti,) in line])
            # A lease that was given up as never minted comes back: what exists must end.
            (state,) = connection.execute(
                "UPDATE leases SET handle = coalesce(?, handle), expires_at = ?, due_at = ?, "
                "ended_at = NULL, "
                "state = CASE WHEN state = 'intent' AND ? THEN 'minted' ELSE 'revoking' END "
                "WHERE id = ? RETURNING state",
                (handle, expires_at, now, good, lease),
            ).fetchone()
            return state

        return await self._committer.run(store, writes=True)

    async def delivered(self, lease: str, due_at: float) -> bool:
        """Note that the agent has what was minted; False if it is to end."""
        return await self._change(
            f"state = 'delivered', due_at = ?, {_RELEASED} WHERE id = ? AND state = 'minted'",
            (due_at, lease),
        )

    async def use(self, lease: str, owner: str, expires_at: float, until: float) -> bool:
        """Note that `owner`'s gateway uses it; False if it is to end, or another's."""
        return await self._change(
            "state = 'delivered', expires_at = ?, due_at = ?, claimed_until = ? "
            "WHERE id = ? AND claimed_by = ? AND state IN ('minted', 'delivered')",
            (expires_at, until, until, lease, owner),
        )

    async def hold(self, leases: Collection[str], owner: str, until: float) -> frozenset[str]:
        """Keep what `owner`'s gateway uses, until then or its end; return what it may use."""

        def keep(connection: sqlite3.Connection) -> frozenset[str]:
            rows = connection.execute(
                "UPDATE leases SET claimed_until = min(?1, expires_at, grant_ends_at), "
                "due_at = min(?1, expires_at, grant_ends_at) "
                "WHERE id IN (SELECT value FROM json_each(?2)) AND claimed_by = ?3 "
                "AND state = 'delivered' RETURNING id",
                (until, json.dumps(list(leases)), owner),
            )
            return frozenset(lease for (lease,) in rows)

        return await self._committer.run(keep, writes=True)

    async def end(self, lease: str, owner: str, now: float, problem: str | None) -> bool:
        """Have a lease end as soon as may be, and release `owner`'s claim; False if it is over."""
        return await self._change(
            "state = 'revoking', due_at = ?, problem = coalesce(?, problem), "
            "claimed_until = CASE claimed_by WHEN ? THEN 0 ELSE claimed_until END, "
            "claimed_by = nullif(claimed_by, ?) "
            f"WHERE id = ? AND {_LIVE}",
            (now, problem, owner, owner, lease),
        )

    async def end_grant(self, jti: str, now: float) -> int:
        """Have all leases of a grant, and of all that descend from it, end; return how many."""
        return await self._committer.run(partial(end_leases, jti=jti, now=now), writes=True)

    async def claim(self, owner: str, now: float, until: float, most: int) -> tuple[Lease, ...]:
        """Claim up to `most` leases that are due and nobody's, those not tried before first."""

        def claim(connection: sqlite3.Connection) -> tuple[Lease, ...]:
            rows = connection.execute(
                "UPDATE leases SET claimed_by = ?, claimed_until = ? WHERE id IN "  # noqa: S608
                "(SELECT id FROM leases WHERE due_at <= ? AND claimed_until <= ? "
                f"ORDER BY attempts > 0, due_at LIMIT ?) RETURNING {_COLUMNS}",
                (owner, until, now, now, most),
            )
            return tuple(sorted(map(_lease, rows), key=lambda lease: lease.due_at or 0.0))

        if not await self._any_due(now):
            return ()  # most often so, and a look costs no fsync
        return await self._committer.run(claim, writes=True)

    async def renewed(
        self, lease: str, owner: str, expires_at: float, due_at: float, problem: str | None
    ) -> bool:
        """Note when a delivered credential ends now; False if it is to end, or another's."""

        def note(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                f"UPDATE leases SET expires_at = ?, due_at = ?, problem = ?, {_RELEASED} "  # noqa: S608
                "WHERE id = ? AND claimed_by = ? AND state = 'delivered'",
                (expires_at, due_at, problem, lease, owner),
            )
            if not done.rowcount:
                connection.execute(
                    f"UPDATE leases SET expires_at = max(expires_at, ?), {_RELEASED} "  # noqa: S608
                    "WHERE id = ? AND claimed_by = ?",
                    (expires_at, lease, owner),
                )
            return bool(done.rowcount)

        return await self._committer.run(note, writes=True)

    async def retry(
        self, lease: Lease, owner: str, due_at: float, problem: str, *, ending: bool
    ) -> bool:
        """Note that a lease could not be ended yet, and release the claim until `due_at`."""
        return await self._settle(
            "state = CASE WHEN ? THEN 'revoking' ELSE state END, due_at = ?, problem = ?, "
            "attempts = attempts + 1",
            (ending, due_at, problem),
            lease,
            owner,
        )

    async def close(
        self, lease: Lease, owner: str, state: LeaseState, now: float, problem: str | None = None
    ) -> bool:
        """Note that a lease is over (`revoked` or `expired`)."""
        return await self._settle(
            "state = ?, ended_at = ?, due_at = NULL, problem = ?",
            (state, now, problem),
            lease,
            owner,
        )

    async def lease(self, lease: str) -> Lease | None:
        """Return a lease, or None."""

        def read(connection: sqlite3.Connection) -> Lease | None:
            query = f"SELECT {_COLUMNS} FROM leases WHERE id = ?"  # noqa: S608 - constants
            row = connection.execute(query, (lease,)).fetchone()
            return None if row is None else _lease(row)

        return await self._committer.run(read)

    async def leases(self, *, over: bool = False) -> tuple[Lease, ...]:
        """Return the leases that are not over, or also those that are, the oldest first."""

        def read(connection: sqlite3.Connection) -> tuple[Lease, ...]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM leases WHERE ? OR {_LIVE} ORDER BY created_at, id",  # noqa: S608
                (over,),
            )
            return tuple(map(_lease, rows))

        return await self._committer.run(read)

    async def counts(self) -> Mapping[LeaseStanding, int]:
        """Return how many leases that are not over stand where; absent means none."""

        def read(connection: sqlite3.Connection) -> Mapping[LeaseStanding, int]:
            query = (
                "SELECT CASE WHEN state = 'delivered' AND delivery = 'proxy' THEN 'used' "  # noqa: S608
                "WHEN state = 'revoking' AND due_at = expires_at THEN 'unrevocable' ELSE state END "
                f"AS standing, count(*) FROM leases WHERE {_LIVE} GROUP BY standing"
            )
            return dict(connection.execute(query))

        return await self._committer.run(read)

    async def _any_due(self, now: float) -> bool:
        def read(connection: sqlite3.Connection) -> bool:
            query = "SELECT 1 FROM leases WHERE due_at <= ? AND claimed_until <= ? LIMIT 1"
            return connection.execute(query, (now, now)).fetchone() is not None

        return await self._committer.run(read)

    async def _settle(self, change: str, values: tuple[Any, ...], lease: Lease, owner: str) -> bool:
        """Change a lease whose handle is as it was, and release the claim whether it is or not.

        A handle that has become known since is that of something nobody has ended yet.
        """

        def run(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                f"UPDATE leases SET {change} WHERE id = ? AND claimed_by = ? "  # noqa: S608
                f"AND handle IS ? AND {_LIVE}",
                (*values, lease.id, owner, lease.handle),
            )
            connection.execute(
                f"UPDATE leases SET {_RELEASED} WHERE id = ? AND claimed_by = ?",  # noqa: S608
                (lease.id, owner),
            )
            return done.rowcount > 0

        return await self._committer.run(run, writes=True)

    async def _change(self, change: str, values: tuple[Any, ...]) -> bool:
        """Run an update of constants alone; return whether it changed a lease."""

        def run(connection: sqlite3.Connection) -> bool:
            return connection.execute(f"UPDATE leases SET {change}", values).rowcount > 0  # noqa: S608

        return await self._committer.run(run, writes=True)


def end_leases(connection: sqlite3.Connection, jti: str, now: float) -> int:
    """Have all leases of a grant and of its descendants end; return how many."""
    return connection.execute(
        # Whoever mints or renews one finds out itself; a gateway has it for long.
        "UPDATE leases SET state = 'revoking', due_at = ?, claimed_until = "  # noqa: S608
        "CASE WHEN state = 'delivered' AND delivery = 'proxy' THEN 0 ELSE claimed_until END "
        f"WHERE {_LIVE} "
        "AND state != 'revoking' "
        "AND id IN (SELECT lease FROM lease_lineage WHERE jti = ?)",
        (now, jti),
    ).rowcount


def _row(lease: Lease) -> tuple[Any, ...]:
    return (
        lease.id,
        lease.grant,
        " ".join(lease.ancestors),
        lease.agent,
        lease.service,
        lease.scope,
        lease.provider,
        lease.config,
        lease.state,
        lease.created_at,
        lease.grant_ends_at,
        lease.expires_at,
        lease.due_at,
        lease.handle,
        lease.attempts,
        lease.problem,
        lease.ended_at,
        lease.delivery,
    )


def _lease(row: tuple[Any, ...]) -> Lease:
    return Lease(row[0], row[1], tuple(row[2].split()), *row[3:])
