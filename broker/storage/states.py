"""The states of providers in the SQLite store: one row each, changed by whoever has claimed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from broker.storage.committer import Committer


class SqliteStates:
    """Keep states (`broker.storage.base.StateStore`) in a database that others write to as well."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def claim(
        self, key: str, owner: str, until: float, now: float
    ) -> tuple[bool, bytes | None]:
        """Claim a state until then; return whether it is `owner`'s, and what it holds."""

        def take(connection: sqlite3.Connection) -> tuple[bool, bytes | None]:
            connection.execute(
                "INSERT INTO provider_states (key, claimed_until) VALUES (?, 0) "
                "ON CONFLICT DO NOTHING",
                (key,),
            )
            row = connection.execute(
                "UPDATE provider_states SET claimed_by = ?1, claimed_until = ?2 "
                "WHERE key = ?3 AND (claimed_by IS NULL OR claimed_by = ?1 OR claimed_until < ?4) "
                "RETURNING value",
                (owner, until, key, now),
            ).fetchone()
            return (False, None) if row is None else (True, row[0])

        return await self._committer.run(take, writes=True)

    async def keep(self, key: str, owner: str, value: bytes) -> bool:
        """Change a state; False if it is not `owner`'s any more."""

        def change(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                "UPDATE provider_states SET value = ? WHERE key = ? AND claimed_by = ?",
                (value, key, owner),
            )
            return done.rowcount > 0

        return await self._committer.run(change, writes=True)

    async def release(self, key: str, owner: str) -> None:
        """Let others claim a state, if it is `owner`'s."""

        def let_go(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE provider_states SET claimed_by = NULL, claimed_until = 0 "
                "WHERE key = ? AND claimed_by = ?",
                (key, owner),
            )

        await self._committer.run(let_go, writes=True)
