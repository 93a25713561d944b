"""The policy that the SQLite store keeps for the admin API: versions that are only ever added.

A version's digest is over its content and over the digest of the version before. Whoever alters
one must alter all that follow, and the audit trail names the digest of each.

Entries are kept nowhere else: they are put together from the versions, from the first to the last,
each of which must be what was stored and follow the one before. So a policy that is read is the
one whose last version has the digest that it has, or it is not read. What has been read once is
remembered, and only what is new is added to it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from broker.errors import StorageError
from broker.model import PolicyChange, PolicyEdit, PolicyEntry
from broker.storage.base import KeptPolicy
from broker.storage.schema import explain, open_database

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from broker.model import Section
    from broker.storage.commits import Commits
    from broker.storage.committer import Committer

_VERSION: Final = "number, made_at, made_by, comment, edits, previous, digest"
_COMPARE: Final = "compare it with the audit trail (`broker logs --json`, action policy.change)"
_EDITED: Final = f"Somebody has edited the database; {_COMPARE} and restore a backup"


@dataclass(frozen=True, slots=True)
class _Read:
    """What the versions up to `number`, whose digest this is, leave together."""

    number: int = 0
    digest: str = ""
    entries: Mapping[tuple[str, str], PolicyEntry] = field(default_factory=dict)

    def kept(self) -> KeptPolicy:
        return KeptPolicy(self.number, tuple(self.entries[key] for key in sorted(self.entries)))


class SqlitePolicies:
    """Keep policy (`broker.storage.base.PolicyHistory`) in a database that others write to too."""

    def __init__(self, committer: Committer, commits: Commits) -> None:
        self._committer = committer
        self._commits = commits
        self._last_read = _Read()
        self._last: tuple[int, int | None] = (0, None)  # the last number, as of which commit

    async def number(self) -> int:
        """Return the number of the last version, or 0."""
        latest = self._commits.latest()
        if latest is None or self._last[1] != latest:
            self._last = (await self._committer.run(_last), latest)
        return self._last[0]

    async def kept(self, number: int | None = None) -> KeptPolicy:
        """Return the entries as of a version."""
        if number is None:
            # Remembered once it is known to be committed: others' changes come in one batch.
            read = await self._committer.run(partial(_read_on, before=self._last_read))
            self._last_read = read
            return read.kept()

        def as_of(connection: sqlite3.Connection) -> KeptPolicy:
            last = _last(connection)
            if not 0 <= number <= last:
                raise StorageError(
                    f"there is no version {number} of the policy; the last is {last}"
                )
            return _read_to(connection, number, _Read()).kept()

        return await self._committer.run(as_of)

    async def commit(self, change: PolicyChange, after: int) -> PolicyChange | None:
        """Store a change, unless `after` is not the last version."""

        def store(connection: sqlite3.Connection) -> PolicyChange | None:
            if _last(connection) != after:
                return None
            newest = connection.execute(
                "SELECT digest FROM policy_versions WHERE number = ?", (after,)
            ).fetchone()
            chained = replace(
                change,
                number=after + 1,
                made_at=float(change.made_at),  # as it is read again, and its digest with it
                previous=newest[0] if newest else "",
            )
            made = replace(chained, digest=_digest(chained))
            _insert(connection, made)
            return made

        return await self._committer.run(store, writes=True)

    async def versions(self, before: int | None, most: int) -> tuple[PolicyChange, ...]:
        """Return versions, the newest first."""

        def read(connection: sqlite3.Connection) -> tuple[PolicyChange, ...]:
            rows = connection.execute(
                f"SELECT {_VERSION} FROM policy_versions WHERE number < coalesce(?, number + 1) "  # noqa: S608 - constants
                "ORDER BY number DESC LIMIT ?",
                (before, most),
            )
            return tuple(map(_checked, rows.fetchall()))

        return await self._committer.run(read)


def read_kept(path: Path) -> KeptPolicy:
    """Return what the database at `path` keeps, for those who keep no store open.

    Raises `StorageError` if it cannot be read, and `ConfigurationError` if it is none of ours.
    """
    with closing(open_database(path)) as connection:
        try:
            connection.execute("BEGIN")  # all of one moment
            return _read_on(connection, _Read()).kept()
        except sqlite3.Error as error:
            raise StorageError(f"{path}: {explain(error)}") from None


def _last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(number), 0) FROM policy_versions").fetchone()
    return int(row[0])


def _read_on(connection: sqlite3.Connection, before: _Read) -> _Read:
    """Return what is kept now, read from where `before` ends; raise `StorageError`."""
    last = _last(connection)
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'policy_versions'")
    ever = next((seq for (seq,) in row), 0)
    if ever != last:
        raise StorageError(f"of {ever} versions of the policy there are {last}. {_EDITED}")
    if before.number:
        query = "SELECT digest FROM policy_versions WHERE number = ?"
        if connection.execute(query, (before.number,)).fetchone() != (before.digest,):
            raise StorageError(
                f"version {before.number} of the policy is gone, or not the one that this broker "
                f"has read: the database was edited or replaced while it ran; {_COMPARE}, and "
                "start the broker anew once you know why"
            )
    return before if last == before.number else _read_to(connection, last, before)


def _read_to(connection: sqlite3.Connection, number: int, before: _Read) -> _Read:
    """Return what is kept as of a version, put together from all changes after `before`."""
    entries = dict(before.entries)
    rows = connection.execute(
        f"SELECT {_VERSION} FROM policy_versions WHERE number > ? AND number <= ? ORDER BY number",  # noqa: S608 - constants
        (before.number, number),
    )
    digest, last = before.digest, before.number
    # All of them first: rows that are left when one is refused would keep a snapshot open.
    for change in map(_checked, rows.fetchall()):
        if (change.number, change.previous) != (last + 1, digest):
            after = f"version {last}" if last else "the empty one"
            raise StorageError(
                f"version {change.number} of the policy does not follow {after}. {_EDITED}"
            )
        digest, last = change.digest, change.number
        made = replace(change, edits=())
        for edit in change.edits:
            if edit.body is None:
                entries.pop((edit.section, edit.name), None)
            else:
                entry = PolicyEntry(edit.section, edit.name, edit.body, made)
                entries[edit.section, edit.name] = entry
    return _Read(last, digest, entries)


def _insert(connection: sqlite3.Connection, made: PolicyChange) -> None:
    connection.execute(
        f"INSERT INTO policy_versions ({_VERSION}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
        (
            made.number,
            made.made_at,
            made.made_by,
            made.comment,
            _edits_as_json(made.edits),
            made.previous,
            made.digest,
        ),
    )


def _checked(row: Iterable[Any]) -> PolicyChange:
    number, at, by, comment, edits, previous, digest = row
    try:
        readable = _edits_from_json(edits)
    except (ValueError, TypeError):
        readable = ()  # of which no version consists
    change = PolicyChange(at, by, comment, readable, number, previous, digest)
    if _digest(change) != digest:
        raise StorageError(
            f"version {number} of the policy is not what was stored: its digest does not "
            f"fit. {_EDITED}"
        )
    return change


def _digest(change: PolicyChange) -> str:
    content = [
        change.number,
        change.made_at,
        change.made_by,
        change.comment,
        _edits_as_json(change.edits),
        change.previous,
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _edits_as_json(edits: Iterable[PolicyEdit]) -> str:
    return json.dumps(
        [[edit.section, edit.name, edit.body] for edit in edits],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _edits_from_json(text: str) -> tuple[PolicyEdit, ...]:
    return tuple(
        PolicyEdit(cast("Section", section), name, body) for section, name, body in json.loads(text)
    )
