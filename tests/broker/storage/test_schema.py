from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError
from broker.storage.schema import MIGRATIONS, RECOVERY, explain, open_database

if TYPE_CHECKING:
    from pathlib import Path

RELEASED = [
    "4da243f5",
    "54a84176",
    "94661330",
    "f1323bd9",
    "9c5b0845",
    "94512dfc",
    "cd84665a",
    "b3c16f1c",
]
"""The beginning of each migration's digest. A released migration never changes: add another."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


def test_migrations_are_appended_and_never_edited() -> None:
    digests = [hashlib.sha256("\0".join(one).encode()).hexdigest()[:8] for one in MIGRATIONS]
    assert digests[: len(RELEASED)] == RELEASED
    assert len(digests) == len(RELEASED), "note the new migration's digest in RELEASED"


def test_a_new_database_has_every_table(path: Path) -> None:
    with closing(open_database(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        assert {name for (name,) in tables} == {
            "grants",
            "replay_claims",
            "enrolled_keys",
            "leases",
            "lease_lineage",
            "revocations",
            "policy_versions",
            "admin_tokens",
            "limit_totals",
            "provider_states",
            "sqlite_sequence",
        }
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_values_of_another_type_are_refused(path: Path) -> None:
    with closing(open_database(path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO replay_claims VALUES (x'00', 'tomorrow')")


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        open_database(path)
    assert path.read_bytes() == before


def test_a_newer_brokers_database_is_left_alone(path: Path) -> None:
    with closing(open_database(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(ConfigurationError, match="newer broker"):
        open_database(path)


def test_c4_damage_is_explained_with_what_is_lost(path: Path) -> None:
    path.write_bytes(b"\0" * 8192)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError) as refusal:
        open_database(path)
    assert str(refusal.value).endswith(RECOVERY)
    corrupt = sqlite3.DatabaseError("database disk image is malformed")
    corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert explain(corrupt).endswith(RECOVERY)
