"""The SQLite schema of the durable records. Migrations are appended and never edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker import sqlite

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

MIGRATIONS: Final = (
    (
        """
        CREATE TABLE grants (
            jti TEXT PRIMARY KEY,
            agent TEXT NOT NULL,
            issuer TEXT NOT NULL,
            subject TEXT NOT NULL,
            scopes TEXT NOT NULL,
            issued_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            policy_version TEXT NOT NULL,
            client_id TEXT NOT NULL,
            task TEXT,
            reason TEXT,
            ancestors TEXT NOT NULL,
            actor TEXT,
            claims TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX grants_by_expiry ON grants (expires_at)",
        # The digest of (issuer, token id): of fixed length, whatever an issuer calls a token.
        """
        CREATE TABLE replay_claims (
            digest BLOB PRIMARY KEY,
            until REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX replay_claims_by_expiry ON replay_claims (until)",
        """
        CREATE TABLE enrolled_keys (
            kid TEXT PRIMARY KEY,
            agent TEXT NOT NULL,
            public_jwk TEXT NOT NULL,
            enrolled_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX enrolled_keys_by_agent ON enrolled_keys (agent)",
    ),
)

_APPLICATION_ID: Final = 0x41544B42  # "ATKB": tells our databases from any other SQLite file

RECOVERY: Final = (
    "stop the broker and restore the file from a backup; or move it away together with its "
    "-wal and -shm files: the broker then starts empty, local agents must be enrolled again, "
    "and proofs that were spent in the last minutes could be used once more until they expire"
)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, creating it or bringing it up to date."""
    return sqlite.open_database(path, sqlite.Schema(_APPLICATION_ID, MIGRATIONS, RECOVERY))


def explain(error: sqlite3.Error) -> str:
    """Say what SQLite met and what to do about it."""
    return sqlite.explain(error, RECOVERY)
