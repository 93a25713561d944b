from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from broker.errors import StorageError
from broker.storage.sqlite import SqliteStorage
from tests.contracts.revocations import ROOT, RevocationContract, jtis, order

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


class TestSqliteRevocations(RevocationContract):
    """The contract, on SQLite."""


async def _filled(path: Path) -> Path:
    """Revoke one grant, take a copy of the database, revoke another; return the copy."""
    store = SqliteStorage(path)
    await store.save_grant(ROOT)
    await store.revocations.add(order("grant", "first"))
    await store.close()
    copy = path.with_name("copy.db")
    shutil.copy2(path, copy)
    store = SqliteStorage(path)
    await store.revocations.add(order("grant", "second"))
    await store.close()
    return copy


def _restore(copy: Path, path: Path) -> None:
    for leftover in path.parent.glob("broker.db-*"):
        leftover.unlink()
    shutil.copy2(copy, path)


async def test_revocations_survive_a_restart(path: Path) -> None:
    await _filled(path)
    store = SqliteStorage(path)
    assert [one.value for one in await store.revocations.since(0)] == ["first", "second"]
    await store.close()


async def test_c3_a_database_that_is_put_in_place_of_ours_is_noticed(path: Path) -> None:
    """Others revoke in it, and we still have the one from before, which knows nothing of that."""
    store = SqliteStorage(path)
    assert [await store.revocations.since(0) for _ in range(2)] == [(), ()]
    for leftover in path.parent.glob("broker.db*"):
        leftover.rename(leftover.with_name(f"old-{leftover.name}"))
    other = SqliteStorage(path)
    await other.revocations.add(order("grant", "first"))
    with pytest.raises(StorageError, match=r"not the file any more.*start the broker anew"):
        await store.revocations.since(0)
    for asked in (store.policies.number(), store.check(), store.save_grant(ROOT)):
        with pytest.raises(StorageError, match="not the file any more"):
            await asked
    await other.close()
    await store.close()


async def test_c3_a_mark_that_appears_is_looked_at(path: Path) -> None:
    store = SqliteStorage(path)
    assert [await store.revocations.since(0) for _ in range(2)] == [(), ()]
    mark = path.with_suffix(".revocations")
    mark.touch(mode=0o600)
    mark.write_text("1")
    with pytest.raises(StorageError, match="forgotten"):
        await store.revocations.since(0)
    await store.close()


async def test_c3_a_restored_database_that_forgets_revocations_is_noticed(path: Path) -> None:
    _restore(await _filled(path), path)
    store = SqliteStorage(path)
    with pytest.raises(StorageError, match=r"it knows 1, and there have been 2.*revoke --all"):
        await store.revocations.since(0)
    with pytest.raises(StorageError, match="forgotten"):
        await store.revocations.add(order("grant", "third"))
    await store.close()


async def test_c3_a_database_that_is_gone_has_forgotten_as_well(path: Path) -> None:
    await _filled(path)
    os.unlink(path)  # noqa: PTH108 - the linter takes pathlib's for slow
    store = SqliteStorage(path)
    with pytest.raises(StorageError, match="it knows 0, and there have been 2"):
        await store.revocations.since(0)
    await store.close()


async def test_c3_it_is_noticed_while_a_broker_runs(path: Path) -> None:
    _restore(await _filled(path), path)
    path.with_suffix(".revocations").unlink()
    store = SqliteStorage(path)
    with pytest.raises(StorageError, match="forgotten"):
        await store.revocations.since(2)
    await store.close()


async def test_c3_revoking_everything_makes_good_what_was_forgotten(path: Path) -> None:
    _restore(await _filled(path), path)
    store = SqliteStorage(path)
    ended = await store.revocations.add(order("all"))
    assert ended.revocation.number == 3
    assert jtis(ended) == {"root"}
    await store.revocations.add(order("grant", "third"))
    assert [one.kind for one in await store.revocations.since(0)] == ["grant", "all", "grant"]
    await store.close()


@pytest.mark.parametrize("text", ["", "-1", "two", "1\n2"])
async def test_a_mark_that_is_no_number_is_not_passed_over(path: Path, text: str) -> None:
    mark = path.with_suffix(".revocations")
    mark.write_text(text)
    mark.chmod(0o600)
    store = SqliteStorage(path)
    with pytest.raises(StorageError, match="does not hold the number"):
        await store.revocations.since(0)
    await store.close()


async def test_c1_a_mark_that_is_a_link_or_open_to_others_is_refused(path: Path) -> None:
    mark = path.with_suffix(".revocations")
    store = SqliteStorage(path)
    mark.symlink_to(path.with_name("nowhere"))
    with pytest.raises(StorageError):
        await store.revocations.since(0)
    mark.unlink()
    await store.revocations.add(order("all"))
    assert mark.stat().st_mode & 0o777 == 0o600
    mark.chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        await store.revocations.since(0)
    await store.close()


async def test_r4_a_revocation_stands_though_its_mark_cannot_be_written(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStorage(path)
    await store.save_grant(ROOT)
    path.parent.chmod(0o777)
    ended = await store.revocations.add(order("agent", "bot"))
    assert jtis(ended) == {"root"}
    assert [one.value for one in await store.revocations.since(0)] == ["bot"]
    assert "would not be noticed to be missing" in caplog.text
    assert "chmod go-w" in caplog.text
    path.parent.chmod(0o700)
    await store.revocations.add(order("agent", "other"))
    assert path.with_suffix(".revocations").read_text() == "2\n"
    await store.close()
