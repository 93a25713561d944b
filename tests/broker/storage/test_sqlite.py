from __future__ import annotations

import asyncio
import multiprocessing
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from broker.errors import ConfigurationError, StorageError
from broker.storage.sqlite import SqliteStorage
from tests.contracts.storage import CLAIM, GRANT, KEY, PLAIN, StorageContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.contracts.storage import OpenStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest_asyncio.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    stores: list[SqliteStorage] = []

    def open_once_more() -> SqliteStorage:
        stores.append(SqliteStorage(path))
        return stores[-1]

    yield open_once_more
    for store in stores:
        await store.close()


@pytest.fixture
def store(open_store: OpenStore) -> object:
    return open_store()


class TestSqliteStorage(StorageContract):
    """The contract, on SQLite."""


async def test_records_survive_a_restart(path: Path) -> None:
    first = SqliteStorage(path)
    await first.save_grant(GRANT, CLAIM)
    await first.enrol(KEY)
    await first.close()
    second = SqliteStorage(path)
    assert await second.grant("grant-1") == GRANT
    assert await second.enrolled_keys() == (KEY,)
    assert await second.save_grant(PLAIN, CLAIM) == "spent"
    await second.close()


async def test_every_file_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStorage(path)
        await store.save_grant(GRANT)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == {"broker.db": 0o600, "broker.db-wal": 0o600, "broker.db-shm": 0o600}


def test_c1_a_symlink_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.db"
    target.touch(0o600)
    path.symlink_to(target)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        SqliteStorage(path)


def test_c1_a_file_open_to_others_is_refused(path: Path) -> None:
    path.touch()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SqliteStorage(path)


def test_c4_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"\0" * 8192)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="restore the file from a backup"):
        SqliteStorage(path)


async def test_c4_a_corrupt_page_is_refused(path: Path) -> None:
    store = SqliteStorage(path)
    for number in range(200):
        await store.save_grant(replace(GRANT, jti=f"{number}", reason="x" * 500))
    await store.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4 * 4096))
    with pytest.raises(ConfigurationError, match="damaged"):
        SqliteStorage(path)


async def test_damage_met_at_work_fails_the_operation_alone(path: Path) -> None:
    store = SqliteStorage(path)
    grants = [replace(GRANT, jti=f"{n:04}", reason=f"marker {'x' * 2000}") for n in range(1000)]
    await asyncio.gather(*(store.save_grant(grant) for grant in grants))
    await store.close()
    store = SqliteStorage(path)
    _overwrite_pages(path, first=20)
    outcomes = await asyncio.gather(
        *(store.grant(grant.jti) for grant in grants[::50]), return_exceptions=True
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {type(failure) for failure in failures} == {StorageError}
    assert all("damaged" in str(failure) for failure in failures)
    assert not any("marker" in str(failure) for failure in failures)
    assert await store.enrolled_keys() == ()
    await store.close()


def _overwrite_pages(path: Path, first: int) -> None:
    with path.open("r+b") as file:
        for page in range(first, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)


def _open_and_save(path: Path, number: int) -> None:
    async def save() -> None:
        store = SqliteStorage(path)
        await store.save_grant(replace(PLAIN, jti=f"p{number}"))
        await store.close()

    asyncio.run(save())


async def test_processes_that_start_together_create_it_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_and_save, args=(path, n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    store = SqliteStorage(path)
    assert all([await store.grant(f"p{n}") for n in range(4)])
    await store.close()
