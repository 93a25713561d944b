from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from broker.app.sessions import note_use
from broker.errors import StorageError
from broker.storage.base import Use
from broker.storage.sqlite import SqliteStorage
from tests.contracts.revocations import NOW, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path


class _Grants:
    """Give each of some uses once."""

    def __init__(self, *uses: Mapping[str, Use]) -> None:
        self._uses = list(uses)

    def take_uses(self) -> Mapping[str, Use]:
        return self._uses.pop(0) if self._uses else {}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    store = SqliteStorage(tmp_path / "broker.db")
    await store.save_grant(ROOT)
    yield store
    await store.close()


async def _requests(store: SqliteStorage) -> tuple[int, float | None]:
    (session,) = await store.sessions(NOW)
    return session.requests, session.used_at


async def _run(grants: _Grants, store: SqliteStorage, every: float, until: int) -> None:
    noting = asyncio.create_task(note_use(grants, store, every))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while until and (await _requests(store))[0] < until:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.005)
    noting.cancel()
    with suppress(asyncio.CancelledError):
        await noting


async def test_use_adds_up_in_the_store(store: SqliteStorage) -> None:
    grants = _Grants({"root": Use(2, NOW + 1.0)}, {}, {"root": Use(3, NOW + 2.0)})
    await _run(grants, store, 0.001, until=5)
    assert await _requests(store) == (5, NOW + 2.0)


async def test_the_last_use_is_noted_when_the_broker_stops(store: SqliteStorage) -> None:
    await _run(_Grants({"root": Use(1, NOW + 1.0)}), store, 3600, until=0)
    assert await _requests(store) == (1, NOW + 1.0)


async def test_what_could_not_be_noted_is_noted_later(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = store.note_use
    failures = iter([True, True, False])

    async def fail(uses: Mapping[str, Use]) -> None:
        if next(failures, False):
            raise StorageError("the disk is full")
        await whole(uses)

    monkeypatch.setattr(store, "note_use", fail)
    grants = _Grants({"root": Use(2, NOW + 1.0)}, {"root": Use(3, NOW + 2.0)})
    await _run(grants, store, 0.001, until=5)
    assert await _requests(store) == (5, NOW + 2.0)
    assert "could not be noted" in caplog.text


async def test_what_is_being_noted_when_the_broker_stops_is_counted_once(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, written = store.note_use, asyncio.Event()

    async def slow(uses: Mapping[str, Use]) -> None:
        first = not written.is_set()
        await whole(uses)
        written.set()
        if first:
            await asyncio.sleep(3600)  # until it is cancelled: nobody is told that it is done

    monkeypatch.setattr(store, "note_use", slow)
    grants = _Grants({"root": Use(2, NOW + 1.0)}, {"root": Use(3, NOW + 2.0)})
    noting = asyncio.create_task(note_use(grants, store, 0.001))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await written.wait()
    noting.cancel()
    with suppress(asyncio.CancelledError):
        await noting
    assert await _requests(store) == (5, NOW + 2.0)
