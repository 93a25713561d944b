"""The policy that the SQLite store keeps for the admin API: versions that are only ever added.

A version's digest is over its content and over the digest of the version before. Whoever alters
one must alter all that follow, and the audit trail names the digest of each.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from broker.errors import StorageError
from broker.model import PolicyChange, PolicyEdit, PolicyEntry
from broker.storage.base import KeptPolicy
from broker.storage.schema import explain, open_database

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from broker.model import Section
    from broker.storage.committer import Committer

_VERSION: Final = "number, made_at, made_by, comment, edits, previous, digest"


class SqlitePolicies:
    """Keep policy (`broker.storage.base.PolicyHistory`) in a database that others write to too."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def number(self) -> int:
        """Return the number of the last version, or 0."""
        return await self._committer.run(_last)

    async def kept(self, number: int | None = None) -> KeptPolicy:
        """Return the entries as of a version."""

        def read(connection: sqlite3.Connection) -> KeptPolicy:
            last = _last(connection)
            if number is None or number == last:
                return KeptPolicy(last, _entries(connection))
            if not 0 <= number < last:
                raise StorageError(
                    f"there is no version {number} of the policy; the last is {last}"
                )
            return KeptPolicy(number, _replayed(connection, number))

        return await self._committer.run(read)

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
            for edit in made.edits:
                _apply(connection, edit, made.number)
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
            return tuple(map(_checked, rows))

        return await self._committer.run(read)


def read_kept(path: Path) -> KeptPolicy:
    """Return what the database at `path` keeps, for those who keep no store open.

    Raises `StorageError` if it cannot be read, and `ConfigurationError` if it is none of ours.
    """
    with closing(open_database(path)) as connection:
        try:
            connection.execute("BEGIN")  # both of one moment
            return KeptPolicy(_last(connection), _entries(connection))
        except sqlite3.Error as error:
            raise StorageError(f"{path}: {explain(error)}") from None


def _last(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT coalesce(max(number), 0) FROM policy_versions").fetchone()
    return int(row[0])


def _entries(connection: sqlite3.Connection) -> tuple[PolicyEntry, ...]:
    rows = connection.execute(
        "SELECT e.section, e.name, e.body, v.number, v.made_at, v.made_by, v.comment, v.previous, "
        "v.digest FROM policy_entries e JOIN policy_versions v ON v.number = e.version "
        "ORDER BY e.section, e.name"
    )
    return tuple(
        PolicyEntry(
            section, name, body, PolicyChange(at, by, comment, (), number, previous, digest)
        )
        for section, name, body, number, at, by, comment, previous, digest in rows
    )


def _replayed(connection: sqlite3.Connection, number: int) -> tuple[PolicyEntry, ...]:
    """Return the entries as of a version, put together from all changes until then."""
    entries: dict[tuple[str, str], PolicyEntry] = {}
    rows = connection.execute(
        f"SELECT {_VERSION} FROM policy_versions WHERE number <= ? ORDER BY number",  # noqa: S608 - constants
        (number,),
    )
    for change in map(_checked, rows):
        made = replace(change, edits=())
        for edit in change.edits:
            if edit.body is None:
                entries.pop((edit.section, edit.name), None)
            else:
                entry = PolicyEntry(edit.section, edit.name, edit.body, made)
                entries[edit.section, edit.name] = entry
    return tuple(entries[key] for key in sorted(entries))


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


def _apply(connection: sqlite3.Connection, edit: PolicyEdit, number: int) -> None:
    if edit.body is None:
        connection.execute(
            "DELETE FROM policy_entries WHERE section = ? AND name = ?", (edit.section, edit.name)
        )
        return
    connection.execute(
        "INSERT INTO policy_entries VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET body = excluded.body, version = excluded.version",
        (edit.section, edit.name, edit.body, number),
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
            f"version {number} of the policy is not what was stored: its digest does not fit. "
            "Somebody has edited the database; compare it with the audit trail "
            "(`broker logs --json`, action policy.change) and restore a backup"
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
