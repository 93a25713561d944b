from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError
from broker.sqlite import Schema, explain, open_database

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = Schema(0x1234, (("CREATE TABLE things (name TEXT) STRICT",),), "restore it")


def test_a_new_database_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(open_database(path, SCHEMA)) as connection:
        connection.execute("INSERT INTO things VALUES ('x')")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
    assert modes == {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600}


def test_a_database_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, SCHEMA).close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        open_database(path, replace(SCHEMA, application_id=0x4321))
    assert path.read_bytes() == before


def test_a_migration_runs_once_and_wholly_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, SCHEMA).close()
    broken = replace(SCHEMA, migrations=(*SCHEMA.migrations, ("CREATE TABLE a (x)", "CREATE b")))
    with pytest.raises(ConfigurationError, match="syntax error"):
        open_database(path, broken)
    later = replace(SCHEMA, migrations=(*SCHEMA.migrations, ("CREATE TABLE a (x)",)))
    for _ in range(2):
        with closing(open_database(path, later)) as connection:
            assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
    with pytest.raises(ConfigurationError, match="newer broker"):
        open_database(path, SCHEMA)


def test_those_who_make_it_at_the_same_time_all_get_it(tmp_path: Path) -> None:
    together = Barrier(4)

    def opened(number: int) -> sqlite3.Connection:
        together.wait(30)
        return open_database(tmp_path / f"{number}", SCHEMA)

    with ThreadPoolExecutor(together.parties) as pool:
        for number in range(100):
            for connection in pool.map(opened, [number] * together.parties):
                assert connection.execute("SELECT count(*) FROM things").fetchone() == (0,)
                connection.close()


@pytest.mark.parametrize("place", ["header", "page"])
def test_c4_a_damaged_database_says_what_to_do(tmp_path: Path, place: str) -> None:
    path = tmp_path / "db"
    with closing(open_database(path, SCHEMA)) as connection:
        connection.executemany("INSERT INTO things VALUES (?)", (("x" * 500,) for _ in range(99)))
    damaged = bytearray(path.read_bytes())
    start = 0 if place == "header" else len(damaged) - 4096
    damaged[start : start + 100] = b"\xff" * 100
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match=r"db: the database is damaged .*; restore it"):
        open_database(path, SCHEMA)


def test_a_lock_is_told_from_damage() -> None:
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert "another process" in explain(busy, "restore it")
    quoting = sqlite3.OperationalError("Could not decode to UTF-8 column 'x' with text 'hush'")
    assert "hush" not in explain(quoting, "restore it")
