"""The embedded store: secrets in one SQLite file, each version sealed with a key of its own.

A row that was altered, or moved to another name or version, is found when the store is opened.
Rows that were deleted, and a whole file put back from a copy before it is opened, are not.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker import sqlite
from broker.errors import (
    ConfigurationError,
    InvalidRequest,
    SecretUnavailable,
    StorageError,
    did_you_mean,
)
from broker.same_file import SameFile
from broker.secrets.base import MAX_SECRET_BYTES, SecretValue
from broker.secrets.envelope import Envelopes, Sealed
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from broker.secrets.envelope import Seals

KEPT_VERSIONS: Final = 10
"""How many versions of a secret are kept; storing another drops the oldest."""

MAX_NAME: Final = 128
NAME_RULE: Final = (
    f"1 to {MAX_NAME} letters, digits, '.', '_', '-' and '/', each part beginning with a letter "
    "or digit"
)

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

_SCHEMA: Final = sqlite.Schema(
    application_id=0x41544B53,  # "ATKS"
    migrations=(
        (
            # One row, sealed with the master key: a wrong key is found even in an empty store.
            "CREATE TABLE master_key (check_text BLOB NOT NULL) STRICT",
            # A name outlives its versions, so that no version number is given out twice.
            """
            CREATE TABLE names (
                name TEXT PRIMARY KEY,
                last_version INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID
            """,
            """
            CREATE TABLE versions (
                name TEXT NOT NULL,
                version INTEGER NOT NULL,
                sealed_key BLOB NOT NULL,
                sealed_value BLOB NOT NULL,
                created_at INTEGER NOT NULL,
                PRIMARY KEY (name, version)
            ) STRICT, WITHOUT ROWID
            """,
        ),
    ),
    recovery=(
        "stop the broker and restore the file from a backup; or move it away together with "
        "its -wal and -shm files, and store the secrets again with `broker secret put`"
    ),
)


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is listed: its current version, when that was stored, all versions kept.

    `created_at` is in seconds since the epoch.
    """

    name: str
    version: int
    created_at: int
    versions: tuple[int, ...]


class EmbeddedStore:
    """Keep secrets in the SQLite file at `path`. Threads and processes may share it.

    Opening it verifies every secret in it. Raises `ConfigurationError` if the file is not
    private or damaged, if a secret in it was altered, or if the master key is another.
    """

    def __init__(self, path: Path, sealer: Seals, clock: Callable[[], float] = time.time) -> None:
        self._path: Final = path
        self._envelopes: Final = Envelopes(sealer)
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._connection: Final = sqlite.open_database(path, _SCHEMA)
        self._same: Final = SameFile(path)
        try:
            # What is deleted is overwritten, and not left in free pages.
            self._connection.execute("PRAGMA secure_delete = ON")
            self._verify()
        except BaseException:
            self._connection.close()
            raise

    def put(self, name: str, value: Secret) -> int:
        """Store `value` as the next version of `name`; return its number.

        Raises:
            InvalidRequest: the name is malformed, or the value is empty or too long.
            StorageError: it could not be written.
        """
        return self._store(name, value, replaces=False)

    def rotate(self, name: str, value: Secret) -> int:
        """Store `value` in the place of the value that `name` has; return its version.

        Raises:
            InvalidRequest: as `put`; or there is no such secret; or it has this value already.
            StorageError: it could not be written.
        """
        return self._store(name, value, replaces=True)

    def remove(self, name: str) -> int:
        """Forget every version of `name`; return how many there were.

        Raises:
            InvalidRequest: there is no such secret.
            StorageError: it could not be written.
        """
        with self._transaction() as connection:
            removed = connection.execute("DELETE FROM versions WHERE name = ?", (name,)).rowcount
            if removed == 0:
                raise InvalidRequest(self._unknown(connection, name), field="name")
        with self._reading() as connection:
            # Otherwise the log keeps the deleted rows until it is next written over.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return removed

    def list(self) -> tuple[StoredSecret, ...]:
        """Return every secret, by name, without values."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT name, version, created_at FROM versions ORDER BY name, version"
            ).fetchall()
        found: dict[str, StoredSecret] = {}
        for name, version, created_at in rows:
            earlier = found[name].versions if name in found else ()
            found[name] = StoredSecret(name, version, created_at, (*earlier, version))
        return tuple(found.values())

    def read(self, name: str, version: int | None = None) -> SecretValue:
        """Return a value: the current one, or that of `version`.

        Raises:
            SecretUnavailable: there is none, or it was altered since the store was opened.
            StorageError: the file could not be read.
        """
        with self._reading() as connection:
            row = connection.execute(
                "SELECT version, sealed_key, sealed_value FROM versions "
                "WHERE name = ? AND version = coalesce(?, version) ORDER BY version DESC LIMIT 1",
                (name, version),
            ).fetchone()
            if row is None:
                raise SecretUnavailable(self._unknown(connection, name, version))
        try:
            return SecretValue(self._open(name, *row), row[0])
        except ConfigurationError as error:
            raise SecretUnavailable(str(error)) from None

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    def _store(self, name: str, value: Secret, *, replaces: bool) -> int:
        _check_new(name, value)
        with self._transaction() as connection:
            current = connection.execute(
                "SELECT version, sealed_key, sealed_value FROM versions WHERE name = ? "
                "ORDER BY version DESC LIMIT 1",
                (name,),
            ).fetchone()
            if replaces:
                if current is None:
                    raise InvalidRequest(self._unknown(connection, name), field="name")
                if self._open(name, *current) == value:
                    raise InvalidRequest(
                        f"{name!r} has this value already: nothing was rotated", field="value"
                    )
            (version,) = connection.execute(
                "INSERT INTO names VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET last_version = last_version + 1 "
                "RETURNING last_version",
                (name,),
            ).fetchone()
            sealed = self._envelopes.seal(name, version, value.reveal())
            connection.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
                (name, version, *sealed, int(self._clock())),
            )
            connection.execute(
                "DELETE FROM versions WHERE name = ? AND version <= ?",
                (name, version - KEPT_VERSIONS),
            )
        return int(version)

    def _open(self, name: str, version: int, key: bytes, value: bytes) -> Secret:
        try:
            return Secret(self._envelopes.open(name, version, Sealed(key, value)))
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._path}: {error}; {_SCHEMA.recovery}") from None

    def _verify(self) -> None:
        with self._transaction() as connection:
            row = connection.execute("SELECT check_text FROM master_key").fetchone()
            if row is None:
                check = self._envelopes.new_check()
                connection.execute("INSERT INTO master_key VALUES (?)", (check,))
            else:
                try:
                    self._envelopes.check(row[0])
                except ConfigurationError as error:
                    raise ConfigurationError(f"{self._path}: {error}") from None
            for name, *rest in connection.execute(
                "SELECT name, version, sealed_key, sealed_value FROM versions"
            ):
                self._open(name, *rest)

    def _unknown(
        self, connection: sqlite3.Connection, name: str, version: int | None = None
    ) -> str:
        kept: dict[str, tuple[int, ...]] = {}
        for known, number in connection.execute("SELECT name, version FROM versions"):
            kept[known] = (*kept.get(known, ()), number)
        if name in kept:
            versions = ", ".join(map(str, sorted(kept[name])))
            return f"secret {name!r} has no version {version}; kept are {versions}"
        return (
            f"there is no secret {name!r} in the embedded store; store it with: "
            f"broker secret put {name}{did_you_mean(name, kept)}"
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._same.require()  # what is stored from now on would be in the other file
            try:
                yield self._connection
            except sqlite3.Error as error:
                reason = sqlite.explain(error, _SCHEMA.recovery)
                raise StorageError(f"{self._path}: {reason}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


class EmbeddedBackend:
    """Read `embedded:<name>` and `embedded:<name>@<version>` from a store."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.scheme = "embedded"
        self._store: Final = store

    def check(self, rest: str) -> None:
        """Raise `ConfigurationError` unless `rest` is a name, or a name and version."""
        _parse(rest)

    async def read(self, rest: str) -> SecretValue:
        """Return the value; raise `SecretUnavailable` if it cannot be had."""
        name, version = _parse(rest)
        try:
            return await asyncio.to_thread(self._store.read, name, version)
        except StorageError as error:
            raise SecretUnavailable(str(error), retryable=True) from None

    async def close(self) -> None:
        """Release the file."""
        await asyncio.to_thread(self._store.close)


def _parse(rest: str) -> tuple[str, int | None]:
    name, at, version = rest.partition("@")
    if not _is_name(name) or (at and not _VERSION.fullmatch(version)):
        raise ConfigurationError(
            f"expected embedded:<name> or embedded:<name>@<version>, the name being {NAME_RULE}"
        )
    return name, int(version) if at else None


def _is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def _check_new(name: str, value: Secret) -> None:
    if not _is_name(name):
        raise InvalidRequest(f"the name must be {NAME_RULE}", field="name")
    size = len(value.reveal())
    if size == 0:
        raise InvalidRequest("the value is empty", field="value")
    if size > MAX_SECRET_BYTES:
        raise InvalidRequest(
            f"the value has {size} bytes, and a secret has at most {MAX_SECRET_BYTES}",
            field="value",
        )
