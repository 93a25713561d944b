"""The revocations of the SQLite store, and how it notices that it has forgotten some.

Beside the database lies a small file with the number of the last revocation. A database that
knows fewer was restored from an older copy: grants that had been revoked would be good again.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, ConfigurationError, StorageError
from broker.files import read_private, replace_private
from broker.revoked import Revoked, timeless
from broker.storage import grants
from broker.storage.base import Ended
from broker.storage.ended import REVOCATION, is_ended, revocations
from broker.storage.leases import end_leases

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from broker.model import Grant, Revocation
    from broker.storage.commits import Commits
    from broker.storage.committer import Committer

_log: Final = logging.getLogger(__name__)


class SqliteRevocations:
    """Keep revocations (`broker.storage.base.RevocationStore`); `mark` is the file beside them."""

    def __init__(self, committer: Committer, mark: Path, commits: Commits) -> None:
        self._committer = committer
        self._mark = mark
        self._marked = 0
        self._commits = commits
        self._known: tuple[int, int | None] | None = None  # the last number, as of which commit

    async def add(self, order: Revocation) -> Ended:
        """Store a revocation and end what it ends, in one transaction."""

        def store(connection: sqlite3.Connection) -> Ended:
            number = None
            marked, last = self._read_mark(), _last(connection)
            if order.kind == "all":
                number = max(marked, last) + 1  # ends whatever has been forgotten, too
            elif last < marked:
                raise StorageError(self._forgetful(last, marked))
            return _end(connection, order, number)

        ended = await self._committer.run(store, writes=True)
        try:
            # A transaction of its own: whoever is in one sees all that is committed, and nobody
            # else writes the file meanwhile. It must never be ahead of the database.
            await self._committer.run(self._note, writes=True)
        except (BrokerError, OSError) as error:  # what is stored is in force, mark or no mark
            _log.error(
                "revocation %d would not be noticed to be missing from the database, should "
                "that be restored from an older copy: %s",
                ended.revocation.number,
                error,
            )
        return ended

    async def since(self, number: int) -> tuple[Revocation, ...]:
        """Return the revocations after a number, in order."""
        latest = self._commits.latest()
        # From 0 on, what has been written down beside the database is looked at, too.
        if latest is not None and self._known == (number, latest) and (number or self._unmarked()):
            return ()

        def read(connection: sqlite3.Connection) -> tuple[Revocation, ...]:
            known, last = number or self._read_mark(), _last(connection)
            if last < known:
                raise StorageError(self._forgetful(last, known))
            if last == number:
                return ()
            return revocations(connection, "number > ? ORDER BY number", number)

        news = await self._committer.run(read)
        self._known = (news[-1].number if news else number, latest)
        return news

    def _note(self, connection: sqlite3.Connection) -> None:
        last = _last(connection)
        if last > self._marked:
            replace_private(self._mark, b"%d\n" % last)
            self._marked = last

    def _unmarked(self) -> bool:
        return not os.path.lexists(self._mark)

    def _read_mark(self) -> int:
        if self._unmarked():
            return 0
        try:
            text = read_private(self._mark).strip()
        except ConfigurationError as error:
            raise StorageError(str(error)) from None
        if not text.isdigit():
            raise StorageError(
                f"{self._mark}: does not hold the number of the last revocation; remove it, and "
                "run `broker revoke --all` unless you know that none has been lost"
            )
        return int(text)

    def _forgetful(self, last: int, known: int) -> str:
        return (
            f"the database beside {self._mark} has forgotten revocations (it knows {last}, and "
            f"there have been {known}): it was restored from an older copy, or replaced. Grants "
            "revoked since would be good again; run `broker revoke --all` to end every grant, "
            "then start the broker"
        )


def _end(connection: sqlite3.Connection, order: Revocation, number: int | None) -> Ended:
    meant = _meant(connection, order)
    ended = [grant for grant in meant if not is_ended(connection, grant.line, grant)]
    stored = _insert(connection, order, number)
    for grant in ended:
        # What its record does not show: it descends from a holder of the scope, or was issued
        # by a clock that is ahead of this one.
        if not Revoked((stored,)).covers(grant):
            _insert(connection, replace(order, kind="grant", value=grant.jti))
    jtis = [grant.jti for grant in ended]
    if order.kind == "grant" and not jtis:
        jtis = [order.value]  # what was minted for a grant may outlive it
    leases = sum(end_leases(connection, jti, order.revoked_at) for jti in jtis)
    return Ended(stored, tuple(ended), leases)


def _meant(connection: sqlite3.Connection, order: Revocation) -> Iterator[Grant]:
    """Return the grants that have not expired and that a revocation is about, in order of issue."""
    now, about = order.revoked_at, timeless(order)
    if order.kind == "grant":
        candidates = grants.live_of_line(connection, now, order.value)
    elif order.kind == "agent":
        candidates = grants.live_of_agent(connection, now, order.value)
    elif order.kind == "scope":
        candidates = grants.live_of_scope(connection, now, order.value)
    else:
        candidates = grants.live(connection, now)
    found: set[str] = set()
    for grant in sorted(candidates, key=lambda one: len(one.ancestors)):
        if about.covers(grant) or not found.isdisjoint(grant.ancestors):
            found.add(grant.jti)
            yield grant


def _insert(
    connection: sqlite3.Connection, order: Revocation, number: int | None = None
) -> Revocation:
    row = (order.kind, order.value, order.revoked_at, order.until, order.by, order.reason, number)
    done = connection.execute(
        f"INSERT INTO revocations ({REVOCATION}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        row,
    )
    return replace(order, number=done.lastrowid or 0)


def _last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'")
    return next((seq for (seq,) in row), 0)
