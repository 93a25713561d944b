"""What the SQLite store keeps of administrators' tokens: their digests, never the tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.model import AdminToken

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from broker.storage.committer import Committer

_COLUMNS: Final = "id, name, digest, permissions, created_at, created_by, expires_at, revoked_at"
_GOOD: Final = "revoked_at IS NULL AND expires_at > ?"


class SqliteAdminTokens:
    """Keep tokens (`broker.storage.base.AdminTokens`)."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def add(self, token: AdminToken) -> bool:
        """Store a token, unless one of its name is good."""

        def store(connection: sqlite3.Connection) -> bool:
            if _select(connection, f"name = ? AND {_GOOD}", token.name, token.created_at):
                return False
            row = (
                token.id,
                token.name,
                token.digest,
                " ".join(token.permissions),
                token.created_at,
                token.created_by,
                token.expires_at,
                token.revoked_at,
            )
            connection.execute(
                f"INSERT INTO admin_tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                row,
            )
            return True

        return await self._committer.run(store, writes=True)

    async def find(self, token_id: str) -> AdminToken | None:
        """Return a token by its id, or None."""

        def read(connection: sqlite3.Connection) -> AdminToken | None:
            return next(iter(_select(connection, "id = ?", token_id)), None)

        return await self._committer.run(read)

    async def all(self) -> tuple[AdminToken, ...]:
        """Return every token, the oldest first."""
        return await self._committer.run(lambda connection: _select(connection, "true"))

    async def revoke(self, name_or_id: str, now: int) -> tuple[AdminToken, ...]:
        """Revoke the good tokens of this name or id."""

        def end(connection: sqlite3.Connection) -> tuple[AdminToken, ...]:
            found = _select(connection, f"? IN (name, id) AND {_GOOD}", name_or_id, now)
            connection.executemany(
                "UPDATE admin_tokens SET revoked_at = ? WHERE id = ?",
                [(now, token.id) for token in found],
            )
            return tuple(replace(token, revoked_at=now) for token in found)

        return await self._committer.run(end, writes=True)


def _select(connection: sqlite3.Connection, condition: str, *values: Any) -> tuple[AdminToken, ...]:
    rows: Iterable[Any] = connection.execute(
        f"SELECT {_COLUMNS} FROM admin_tokens WHERE {condition} ORDER BY created_at, id",  # noqa: S608 - constants
        values,
    )
    return tuple(
        AdminToken(token, name, digest, tuple(can.split()), created, by, expires, revoked)
        for token, name, digest, can, created, by, expires, revoked in rows
    )
