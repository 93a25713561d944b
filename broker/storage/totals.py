"""The totals of the SQLite store: how often grants have done what they may do so often in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from broker.storage.committer import Committer

_COUNT: Final = """
    INSERT INTO limit_totals (key, used, until) VALUES (?, 1, ?)
    ON CONFLICT (key) DO UPDATE SET used = used + 1, until = max(until, excluded.until)
"""
_USED: Final = "SELECT used FROM limit_totals WHERE key = ?"
_UNCOUNT: Final = "UPDATE limit_totals SET used = used - 1 WHERE key = ? AND used > 0"


class SqliteTotals:
    """Durable counts (`broker.storage.base.TotalStore`); a method that returns is on disk."""

    def __init__(self, committer: Committer) -> None:
        self._committer: Final = committer

    async def count(self, totals: Sequence[tuple[str, int]], until: float) -> int | None:
        """Add one to the count of each key; or to none, and return the index of one at its most."""

        def add(connection: sqlite3.Connection) -> int | None:
            for index, (key, most) in enumerate(totals):
                if _used(connection, key) >= most:
                    return index
            connection.executemany(_COUNT, [(key, until) for key, _ in totals])
            return None

        return await self._committer.run(add, writes=True)

    async def uncount(self, keys: Sequence[str]) -> None:
        """Take one from the count of each key again."""

        def take(connection: sqlite3.Connection) -> None:
            connection.executemany(_UNCOUNT, [(key,) for key in keys])

        await self._committer.run(take, writes=True)

    async def used(self, keys: Sequence[str]) -> Mapping[str, int]:
        """Return the counts of those keys that have one."""

        def read(connection: sqlite3.Connection) -> dict[str, int]:
            found = {key: _used(connection, key) for key in keys}
            return {key: used for key, used in found.items() if used}

        return await self._committer.run(read)


def _used(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute(_USED, (key,)).fetchone()
    return 0 if row is None else int(row[0])
