from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest_asyncio

from broker.storage.schema import open_database
from broker.storage.sqlite import GRANT_RETENTION, SqliteStorage
from tests.contracts.leases import LEASE, MINTER, NOW, REAPER, LeaseStoreContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.contracts.leases import OpenStore


@pytest_asyncio.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    stores: list[SqliteStorage] = []

    def open_once_more() -> SqliteStorage:
        stores.append(SqliteStorage(tmp_path / "broker.db"))
        return stores[-1]

    yield open_once_more
    for store in stores:
        await store.close()


class TestSqliteLeases(LeaseStoreContract):
    """The contract, on SQLite."""


async def test_a_purge_leaves_no_lineage_behind(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    storage = SqliteStorage(path)
    await storage.leases.open(LEASE, MINTER, NOW, 5)
    (lease,) = await storage.leases.claim(REAPER, NOW, NOW + 30, 1)
    await storage.leases.close(lease, REAPER, "revoked", NOW)
    assert await storage.purge(NOW + GRANT_RETENTION + 1) == 1
    await storage.close()
    with closing(open_database(path)) as connection:
        assert connection.execute("SELECT count(*) FROM lease_lineage").fetchone() == (0,)


async def test_records_survive_a_restart(tmp_path: Path) -> None:
    first = SqliteStorage(tmp_path / "broker.db")
    await first.leases.open(LEASE, MINTER, NOW + 45, 5)
    await first.leases.reserve(LEASE.id, MINTER, b"handle")
    await first.close()
    second = SqliteStorage(tmp_path / "broker.db")
    assert await second.leases.claim(REAPER, NOW + 44, NOW + 90, 1) == ()
    (lease,) = await second.leases.claim(REAPER, NOW + 45, NOW + 90, 1)
    assert lease.handle == b"handle"
    await second.close()
