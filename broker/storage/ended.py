"""Which grants of the SQLite store have been revoked, asked within a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.model import Revocation
from broker.revoked import Revoked
from broker.storage import grants

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from broker.model import Grant

REVOCATION: Final = "kind, value, revoked_at, until, revoked_by, reason, number"
"""The columns of a revocation, in the order of the fields of `Revocation`."""


def revocations(
    connection: sqlite3.Connection, condition: str, *values: object
) -> tuple[Revocation, ...]:
    """Return the revocations of which `condition`, a constant, holds."""
    query = f"SELECT {REVOCATION} FROM revocations WHERE {condition}"  # noqa: S608 - constants
    return tuple(Revocation(*row) for row in connection.execute(query, values))


def is_ended(
    connection: sqlite3.Connection, line: Sequence[str], unsaved: Grant | None = None
) -> bool:
    """Say whether a grant has been revoked, or any that it descends from.

    `line` are the jtis of all of them; `unsaved` is the grant itself, if it is not stored yet.
    """
    marks = ", ".join("?" * len(line))
    if revocations(connection, f"kind = 'grant' AND value IN ({marks}) LIMIT 1", *line):
        return True
    known = [grant for jti in line if (grant := grants.find(connection, jti)) is not None]
    if unsaved is not None:
        known.append(unsaved)
    if not known:
        return False
    earliest = min(grant.issued_at for grant in known)
    later = revocations(connection, "kind != 'grant' AND revoked_at >= ?", earliest)
    return bool(later) and any(map(Revoked(later).covers, known))


def all_revoked(connection: sqlite3.Connection) -> Revoked:
    """Return everything that has been revoked."""
    return Revoked(revocations(connection, "1"))
