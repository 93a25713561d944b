"""Open a SQLite file that is ours, private, whole, and of the schema that we know.

A migration is appended and never edited: a database says in `user_version` how many it has
seen. Opening brings it up to date in one transaction, under SQLite's own lock, so that two
processes that start together migrate once.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError
from broker.files import private_database

if TYPE_CHECKING:
    from pathlib import Path

BUSY_TIMEOUT: Final = 10.0
"""How long, in seconds, to wait for another process's transaction."""

_STRICT_TABLES: Final = (3, 37, 0)
_PRIMARY_CODE: Final = 0xFF  # the rest of an extended code says more than is needed here
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database of one kind holds.

    `application_id` tells it from other SQLite files; `migrations` are statements, in order;
    `recovery` is what to do when it is damaged.
    """

    application_id: int
    migrations: tuple[tuple[str, ...], ...]
    recovery: str


def open_database(path: Path, schema: Schema) -> sqlite3.Connection:
    """Open the database at `path`, creating it (mode 0600) or bringing it up to date.

    The connection is in autocommit mode: whoever uses it says BEGIN. Raises
    `ConfigurationError`, saying what to do, if the file is not private, is damaged, is not
    ours, or was written by a newer broker.
    """
    if sqlite3.sqlite_version_info < _STRICT_TABLES:
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}; 3.37 or newer is needed"
        )
    private_database(path)
    connection = None
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        _require_ours(connection, path, schema)
        _prepare(connection, path)
        _migrate(connection, schema)
        _check(connection, path, schema)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise ConfigurationError(f"{path}: {explain(error, schema.recovery)}") from None
        raise
    return connection


def explain(error: sqlite3.Error, recovery: str) -> str:
    """Say what SQLite met and what to do about it; `recovery` is for a damaged database."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by Python for a value it cannot read, and its text quotes the value
        return f"the database is damaged (a value cannot be read); {recovery}"
    if code & _PRIMARY_CODE in _DAMAGED:
        return f"the database is damaged ({error}); {recovery}"
    if code & _PRIMARY_CODE == sqlite3.SQLITE_BUSY:
        return (
            f"another process has kept the database locked for over {BUSY_TIMEOUT:.0f} s; "
            "find it with fuser or lsof, and end it"
        )
    return f"the database failed ({error})"


def _require_ours(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Refuse a database that this broker must not write to, before anything is changed."""
    connection.execute("BEGIN")  # all of one moment: somebody else may be making it
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    seen = _version(connection)
    connection.execute("COMMIT")
    if application != schema.application_id and (application, tables) != (0, 0):
        raise ConfigurationError(
            f"{path}: is a database of another program; name another file, or move it away"
        )
    if seen > len(schema.migrations):
        raise ConfigurationError(
            f"{path}: was written by a newer broker (schema {seen}, this one knows "
            f"{len(schema.migrations)}); run that version, or restore a backup from before it"
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    (mode,) = _patiently(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise ConfigurationError(
            f"{path}: its file system cannot hold a write-ahead log (SQLite answers {mode!r}); "
            "put the data directory on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")


def _patiently(connection: sqlite3.Connection, statement: str) -> tuple[str]:
    """Run a statement for which SQLite itself does not wait while the database is locked."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            row: tuple[str] = connection.execute(statement).fetchone()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return row


def _migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, migration in enumerate(schema.migrations, start=1):
            if number > _version(connection):
                for statement in migration:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        line = " ".join(str(finding).split())
        raise ConfigurationError(f"{path}: the database is damaged ({line}); {schema.recovery}")
