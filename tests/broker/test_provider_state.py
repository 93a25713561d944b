from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker import provider_state
from broker.errors import StorageError
from broker.keys.sealing import MasterKey
from broker.provider_state import CLAIM, SealedState
from broker.storage.sqlite import SqliteStorage
from providers.base import ProviderError, Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.storage.base import StateStore

KEY = "oauth2 https://login.example.com/token crm"


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    one = SqliteStorage(tmp_path / "broker.db")
    yield one
    await one.close()


@pytest.fixture
def master() -> MasterKey:
    return MasterKey(b"k" * 32)


async def test_what_is_kept_is_there_for_the_next_process(
    storage: SqliteStorage, master: MasterKey
) -> None:
    async with SealedState(storage.states, master).exclusive(KEY) as held:
        assert held.value is None
        await held.keep(Secret(b"refresh-1"))
        assert held.value == Secret(b"refresh-1")
    async with SealedState(storage.states, master).exclusive(KEY) as held:
        assert held.value == Secret(b"refresh-1")


async def test_it_is_sealed_for_that_state_alone(
    storage: SqliteStorage, master: MasterKey, tmp_path: Path
) -> None:
    state = SealedState(storage.states, master)
    async with state.exclusive(KEY) as held:
        await held.keep(Secret(b"refresh-canary"))
    _, sealed = await storage.states.claim(KEY, "x", 1e12, 1e11)
    await storage.states.release(KEY, "x")
    assert sealed is not None
    written = [path.read_bytes() for path in tmp_path.iterdir()]  # noqa: ASYNC240 - small files
    assert not any(b"refresh-canary" in content for content in written)
    await storage.states.claim("another", "x", 1e12, 1e11)
    await storage.states.keep("another", "x", sealed)
    await storage.states.release("another", "x")
    with pytest.raises(ProviderError, match="cannot be opened"):
        async with state.exclusive("another"):
            pass
    with pytest.raises(ProviderError, match="cannot be opened"):
        async with SealedState(storage.states, MasterKey(b"o" * 32)).exclusive(KEY):
            pass


async def test_one_at_a_time_and_nothing_is_lost(storage: SqliteStorage, master: MasterKey) -> None:
    async def count() -> None:
        async with SealedState(storage.states, master).exclusive(KEY) as held:
            number = 0 if held.value is None else int(held.value.reveal())
            await asyncio.sleep(0.001)
            await held.keep(Secret(b"%d" % (number + 1)))

    await asyncio.gather(*(count() for _ in range(8)))
    async with SealedState(storage.states, master).exclusive(KEY) as held:
        assert held.value == Secret(b"8")


async def test_who_waits_for_too_long_is_told(
    storage: SqliteStorage, master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_state, "PATIENCE", 0.2)
    state = SealedState(storage.states, master)
    async with state.exclusive(KEY):
        with pytest.raises(ProviderError, match="too long") as caught:
            async with state.exclusive(KEY):
                pass
    assert caught.value.retryable
    assert caught.value.untouched


async def test_a_holder_that_died_is_followed_and_changes_nothing_more(
    storage: SqliteStorage, master: MasterKey
) -> None:
    now = [0.0]
    state = SealedState(storage.states, master, lambda: now[0])
    async with state.exclusive(KEY) as dead:
        now[0] = CLAIM + 1
        async with state.exclusive(KEY) as following:
            await following.keep(Secret(b"refresh-2"))
        with pytest.raises(ProviderError, match="was not kept"):
            await dead.keep(Secret(b"refresh-1"))
    async with state.exclusive(KEY) as held:
        assert held.value == Secret(b"refresh-2")


async def test_an_error_lets_go_of_it(storage: SqliteStorage, master: MasterKey) -> None:
    state = SealedState(storage.states, master)
    with pytest.raises(ZeroDivisionError):
        async with state.exclusive(KEY):
            raise ZeroDivisionError
    async with state.exclusive(KEY):
        pass


class Broken:
    """A store that fails where a test says so."""

    def __init__(self, store: StateStore, at: str) -> None:
        self._store = store
        self._at = at

    async def claim(
        self, key: str, owner: str, until: float, now: float
    ) -> tuple[bool, bytes | None]:
        self._fail("claim")
        return await self._store.claim(key, owner, until, now)

    async def keep(self, key: str, owner: str, value: bytes) -> bool:
        self._fail("keep")
        return await self._store.keep(key, owner, value)

    async def release(self, key: str, owner: str) -> None:
        self._fail("release")
        await self._store.release(key, owner)

    def _fail(self, at: str) -> None:
        if at == self._at:
            raise StorageError("the disk is full")


@pytest.mark.parametrize(("at", "untouched"), [("claim", True), ("keep", False)])
async def test_a_store_that_fails_is_told_as_it_is(
    storage: SqliteStorage, master: MasterKey, at: str, *, untouched: bool
) -> None:
    with pytest.raises(ProviderError, match="the disk is full") as caught:
        async with SealedState(Broken(storage.states, at), master).exclusive(KEY) as held:
            await held.keep(Secret(b"refresh-1"))
    assert caught.value.retryable
    assert caught.value.untouched is untouched


async def test_a_release_that_fails_harms_nobody(storage: SqliteStorage, master: MasterKey) -> None:
    async with SealedState(Broken(storage.states, "release"), master).exclusive(KEY) as held:
        await held.keep(Secret(b"refresh-1"))
