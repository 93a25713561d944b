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
    (
        """
        CREATE TABLE leases (
            id TEXT PRIMARY KEY,
            grant_jti TEXT NOT NULL,
            ancestors TEXT NOT NULL,
            agent TEXT NOT NULL,
            service TEXT NOT NULL,
            scope TEXT NOT NULL,
            provider TEXT NOT NULL,
            config TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN
                ('intent', 'minted', 'delivered', 'revoking', 'revoked', 'expired')),
            created_at REAL NOT NULL,
            grant_ends_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            due_at REAL CHECK ((due_at IS NULL) = (state IN ('revoked', 'expired'))),
            handle BLOB,
            attempts INTEGER NOT NULL,
            problem TEXT,
            ended_at REAL,
            claimed_by TEXT,
            claimed_until REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX leases_due ON leases (due_at) WHERE due_at IS NOT NULL",
        "CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL",
        # A lease by its grant and by each grant that this one descends from.
        """
        CREATE TABLE lease_lineage (
            jti TEXT NOT NULL,
            lease TEXT NOT NULL,
            PRIMARY KEY (jti, lease)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX lease_lineage_by_lease ON lease_lineage (lease)",
        """
        CREATE TRIGGER lease_forgotten AFTER DELETE ON leases BEGIN
            DELETE FROM lease_lineage WHERE lease = OLD.id;
        END
        """,
    ),
    (
        # AUTOINCREMENT: a number is never given twice, whatever has been purged.
        """
        CREATE TABLE revocations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL CHECK (kind IN ('grant', 'agent', 'scope', 'all')),
            value TEXT NOT NULL CHECK ((value = '') = (kind = 'all')),
            revoked_at INTEGER NOT NULL,
            until INTEGER NOT NULL,
            revoked_by TEXT NOT NULL,
            reason TEXT
        ) STRICT
        """,
        "CREATE INDEX revocations_by_value ON revocations (value, kind)",
        "CREATE INDEX revocations_by_time ON revocations (revoked_at) WHERE kind != 'grant'",
        "CREATE INDEX revocations_by_end ON revocations (until)",
        "ALTER TABLE grants ADD COLUMN requests INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE grants ADD COLUMN used_at REAL",
    ),
    ("ALTER TABLE leases ADD COLUMN delivery TEXT NOT NULL DEFAULT 'credential'",),
    (
        # The policy that is set through the admin API: every version of it, for ever, and the
        # entries that the versions leave together.
        """
        CREATE TABLE policy_versions (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            made_at REAL NOT NULL,
            made_by TEXT NOT NULL,
            comment TEXT,
            edits TEXT NOT NULL,
            previous TEXT NOT NULL,
            digest TEXT NOT NULL
        ) STRICT
        """,
        """
        CREATE TRIGGER policy_versions_are_not_edited BEFORE UPDATE ON policy_versions BEGIN
            SELECT RAISE(ABORT, 'a version of the policy never changes');
        END
        """,
        """
        CREATE TRIGGER policy_versions_are_not_deleted BEFORE DELETE ON policy_versions BEGIN
            SELECT RAISE(ABORT, 'a version of the policy is never removed');
        END
        """,
        """
        CREATE TABLE policy_entries (
            section TEXT NOT NULL CHECK (section IN
                ('identity_sources', 'services', 'scopes', 'agents')),
            name TEXT NOT NULL,
            body TEXT NOT NULL,
            version INTEGER NOT NULL REFERENCES policy_versions (number),
            PRIMARY KEY (section, name)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE admin_tokens (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            digest BLOB NOT NULL,
            permissions TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            created_by TEXT NOT NULL,
            expires_at INTEGER NOT NULL,
            revoked_at INTEGER
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE limit_totals (
            key TEXT PRIMARY KEY,
            used INTEGER NOT NULL CHECK (used >= 0),
            until REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX limit_totals_by_end ON limit_totals (until)",
    ),
    (
        # What a provider must remember, sealed; one process at a time may change it.
        """
        CREATE TABLE provider_states (
            key TEXT PRIMARY KEY,
            value BLOB,
            claimed_by TEXT,
            claimed_until REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
    # Entries are put together from the versions, whose digests are held against each other.
    ("DROP TABLE policy_entries",),
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


def touch(connection: sqlite3.Connection) -> None:
    """Write what is there already, to see whether that can be done."""
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")


def explain(error: sqlite3.Error) -> str:
    """Say what SQLite met and what to do about it."""
    return sqlite.explain(error, RECOVERY)
