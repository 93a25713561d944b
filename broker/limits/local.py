"""Counts that the processes of one machine share: a small SQLite file in the data directory.

Windows are rings: of a rate of `amount`, the entries of one key are numbered, and number n is
kept in place n modulo `amount`, so that one look says whether the window is full, whatever its
size. Times are of the monotonic clock, which all processes of a machine have in common; after
the machine has started anew it is behind, and what was made "later" is dropped.

A process says every few seconds that the places it holds are still taken. Those of one that has
died are free `HELD_FOR` seconds after it last said so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from broker import sqlite
from broker.errors import LimitsUnavailable, StorageError
from broker.limits.base import FREE, Ticket
from broker.limits.quota import Exceeded
from broker.limits.windows import Windows, WindowStorage, count_totals
from broker.storage.committer import Committer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from broker.limits.quota import Quota
    from broker.storage.base import TotalStore

_T = TypeVar("_T")

HELD_FOR: Final = 15.0
"""Seconds for which a place is taken unless its process says again that it is."""

_SWEEP_EVERY: Final = 60.0
_APPLICATION_ID: Final = 0x41544B4C  # "ATKL"
_RECOVERY: Final = (
    "stop the broker and delete the file together with its -wal and -shm files: rates are then "
    "counted anew"
)
_MIGRATIONS: Final = (
    (
        """
        CREATE TABLE windows (
            key TEXT PRIMARY KEY,
            number INTEGER NOT NULL,
            until REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE entries (
            key TEXT NOT NULL,
            place INTEGER NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (key, place)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE places (
            key TEXT NOT NULL,
            ticket TEXT NOT NULL,
            until REAL NOT NULL,
            PRIMARY KEY (key, ticket)
        ) STRICT, WITHOUT ROWID
        """,
    ),
)

_log: Final = logging.getLogger(__name__)


class RingStorage(WindowStorage):
    """Moving windows in a SQLite database; each method runs within the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._connection: Final = connection

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add entries to a window if there is room for all of them."""
        now, number = self.clock(), self._number(key)
        if amount > limit or self._entry(key, (number + amount) % limit) >= now - expiry:
            return False
        self._connection.execute(
            "INSERT OR REPLACE INTO windows VALUES (?, ?, ?)",
            (key, number + amount, now + expiry),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
            [(key, (number + one) % limit, now) for one in range(1, amount + 1)],
        )
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the oldest entry in the window was made, and how many there are."""
        now = self.clock()
        oldest = self._entry(key, (self._number(key) + 1) % limit)
        if oldest >= now - expiry:
            return oldest, limit
        first, count = self._connection.execute(
            "SELECT min(at), count(*) FROM entries WHERE key = ? AND at >= ?", (key, now - expiry)
        ).fetchone()
        return (first, count) if count else (now, 0)

    def take_back(self, key: str, limit: int) -> None:
        """Undo the last entry of a key's window."""
        place = self._number(key) % limit
        self._connection.execute("DELETE FROM entries WHERE key = ? AND place = ?", (key, place))
        self._connection.execute("UPDATE windows SET number = number - 1 WHERE key = ?", (key,))

    def clear(self, key: str) -> None:
        """Forget a key."""
        self._connection.execute("DELETE FROM entries WHERE key = ?", (key,))
        self._connection.execute("DELETE FROM windows WHERE key = ?", (key,))

    def reset(self) -> int:
        """Forget everything; return how many keys there were."""
        self._connection.execute("DELETE FROM entries")
        return self._connection.execute("DELETE FROM windows").rowcount

    def forget(self) -> None:
        """Drop windows that are over."""
        over = "SELECT key FROM windows WHERE until < ?"
        for table in ("entries", "windows"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE key IN ({over})",  # noqa: S608 - constants
                (self.clock(),),
            )

    def forget_later(self) -> None:
        """Drop what was made at a time yet to come: before the machine was started anew."""
        self._connection.execute("DELETE FROM entries WHERE at > ?", (self.clock(),))

    def _number(self, key: str) -> int:
        row = self._connection.execute(
            "SELECT number FROM windows WHERE key = ?", (key,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _entry(self, key: str, place: int) -> float:
        row = self._connection.execute(
            "SELECT at FROM entries WHERE key = ? AND place = ?", (key, place)
        ).fetchone()
        return -math.inf if row is None else float(row[0])


class LocalCounts:
    """Count what all processes do that have this file (`broker.limits.base.Counts`).

    Totals must outlast the file, so `totals` keeps them. Raises `ConfigurationError`, saying
    what to do, if there is no usable database to be had.
    """

    def __init__(
        self,
        path: Path,
        totals: TotalStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        held_for: float = HELD_FOR,
    ) -> None:
        schema = sqlite.Schema(_APPLICATION_ID, _MIGRATIONS, _RECOVERY)
        connection = sqlite.open_database(path, schema)
        connection.execute(
            "PRAGMA synchronous = NORMAL"
        )  # whole after any crash, if not the latest
        explain = partial(sqlite.explain, recovery=_RECOVERY)
        self._committer: Final = Committer(connection, path, explain)
        self._totals: Final = totals
        self._clock: Final = clock
        self._held_for: Final = held_for
        self._storage: Final = RingStorage(connection, clock)
        self._windows: Final = Windows(self._storage)
        self._held: Final[dict[str, Ticket]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._prepared = False

    def take_now(self, quota: Quota) -> Ticket | Exceeded | None:  # noqa: ARG002
        """Return None: others may be counting."""
        return None

    async def take(self, quota: Quota) -> Ticket | Exceeded:
        """Count a request; of one that is refused anyway, the totals are not touched."""
        if quota.totals:
            refused = await self._run(lambda connection: self._full(connection, quota))
            refused = refused or await count_totals(self._totals, quota)
            if refused is not None:
                return refused
        ticket = Ticket(quota.places, secrets.token_hex(8)) if quota.places else FREE
        try:
            refused = await self._run(lambda connection: self._take(connection, quota, ticket))
        except BaseException:
            with suppress(StorageError):  # what has failed first is what is told
                await self._uncount(quota)
            raise
        self._prepared = True
        if refused is None:
            if ticket.places:
                self._held[ticket.id] = ticket
            return ticket
        await self._uncount(quota)
        return refused

    def give_back(self, ticket: Ticket) -> None:
        """Give back a request's places."""
        if self._held.pop(ticket.id, None) is not None:
            task = asyncio.get_running_loop().create_task(self._release(ticket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def keep(self) -> None:
        """Say every few seconds that what is held is still taken, and forget what is over."""
        swept = self._clock()
        while True:
            await asyncio.sleep(self._held_for / 3)
            sweep = self._clock() - swept > _SWEEP_EVERY
            try:
                await self._run(lambda connection: self._hold(connection, sweep=sweep))  # noqa: B023
            except StorageError as error:
                _log.warning("limits: places could not be kept: %s", error)
            else:
                swept = self._clock() if sweep else swept

    async def check(self) -> None:
        """Raise `LimitsUnavailable` if the file cannot be read."""
        try:
            await self._run(_look)
        except StorageError as error:
            raise LimitsUnavailable(str(error)) from None

    async def close(self) -> None:
        """Give back what is still held, and close the file."""
        held = list(self._held.values())
        self._held.clear()
        for ticket in held:
            await self._release(ticket)
        await asyncio.gather(*self._tasks)
        await self._committer.close()

    async def _uncount(self, quota: Quota) -> None:
        if quota.totals:
            await self._totals.uncount([total.key for total in quota.totals])

    async def _run(self, operation: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._committer.run(operation, writes=True)

    async def _release(self, ticket: Ticket) -> None:
        rows = [(place.key, ticket.id) for place in ticket.places]

        def release(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM places WHERE key = ? AND ticket = ?", rows)

        try:
            await self._run(release)
        except StorageError as error:
            _log.warning("limits: a place is free only after %.0f s: %s", self._held_for, error)

    def _take(
        self, connection: sqlite3.Connection, quota: Quota, ticket: Ticket
    ) -> Exceeded | None:
        self._prepare(connection)
        refused = self._no_place(connection, quota) or self._windows.take(quota.windows)
        if refused is None:
            self._occupy(connection, [ticket])
        return refused

    def _full(self, connection: sqlite3.Connection, quota: Quota) -> Exceeded | None:
        self._prepare(connection)
        return self._no_place(connection, quota) or self._windows.full(quota.windows)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Drop what cannot be from since the machine was started, until that is committed."""
        if not self._prepared:
            self._storage.forget_later()
            until = self._clock() + self._held_for
            connection.execute("DELETE FROM places WHERE until > ?", (until,))

    def _no_place(self, connection: sqlite3.Connection, quota: Quota) -> Exceeded | None:
        for place in quota.places:
            (taken,) = connection.execute(
                "SELECT count(*) FROM places WHERE key = ? AND until > ?",
                (place.key, self._clock()),
            ).fetchone()
            if taken >= place.most:
                return Exceeded("concurrent", place.name, 1)
        return None

    def _hold(self, connection: sqlite3.Connection, *, sweep: bool) -> None:
        self._occupy(connection, list(self._held.values()))
        if sweep:
            connection.execute("DELETE FROM places WHERE until < ?", (self._clock(),))
            self._storage.forget()

    def _occupy(self, connection: sqlite3.Connection, tickets: Iterable[Ticket]) -> None:
        until = self._clock() + self._held_for
        connection.executemany(
            "INSERT OR REPLACE INTO places VALUES (?, ?, ?)",
            [(place.key, ticket.id, until) for ticket in tickets for place in ticket.places],
        )


def _look(connection: sqlite3.Connection) -> None:
    """Read something, to its end: a row that is left keeps open what the file was like then."""
    connection.execute("SELECT 1 FROM windows LIMIT 1").fetchall()
