from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from broker import revocations as module
from broker.errors import StorageError
from broker.revocations import POLL_SECONDS, Revocations
from broker.storage.sqlite import SqliteStorage
from tests.contracts.revocations import ROOT, jtis, order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from broker.model import Revocation


@dataclass
class _Learnt:
    """What one worker was told."""

    news: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, news: Sequence[Revocation], as_of: float) -> None:
        self.news += [one.value for one in news]
        self.times.append(as_of)
        if news:
            self.something.set()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    store = SqliteStorage(tmp_path / "broker.db")
    yield store
    await store.close()


async def test_catching_up_tells_each_revocation_once(store: SqliteStorage) -> None:
    learnt = _Learnt()
    revocations = Revocations(store.revocations, learnt)
    await revocations.catch_up()
    assert (learnt.news, len(learnt.times)) == ([], 1)
    for name in ("a", "b"):
        await store.revocations.add(order("grant", name))
    await revocations.catch_up()
    await revocations.catch_up()
    assert (learnt.news, len(learnt.times)) == (["a", "b"], 3)


async def test_the_moment_is_when_the_store_was_asked(store: SqliteStorage) -> None:
    clock = iter([10.0, 20.0])
    learnt = _Learnt()
    revocations = Revocations(store.revocations, learnt, monotonic=lambda: next(clock))
    await revocations.catch_up()
    await revocations.catch_up()
    assert learnt.times == [10.0, 20.0]


async def test_what_is_revoked_here_is_in_force_on_return(store: SqliteStorage) -> None:
    learnt = _Learnt()
    await store.save_grant(ROOT)
    ended = await Revocations(store.revocations, learnt).revoke(order("agent", "bot"))
    assert jtis(ended) == {"root"}
    assert learnt.news == ["bot"]


async def test_what_others_revoke_is_followed(store: SqliteStorage, tmp_path: Path) -> None:
    learnt = _Learnt()
    other = SqliteStorage(tmp_path / "broker.db")
    following = asyncio.create_task(Revocations(store.revocations, learnt).follow())
    await other.revocations.add(order("grant", "theirs"))
    async with asyncio.timeout(20):
        await learnt.something.wait()
    assert learnt.news == ["theirs"]
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    await other.close()


class _Failing:
    """A store that fails, then works again."""

    def __init__(self, store: SqliteStorage, failures: int) -> None:
        self._store = store
        self._failures = failures

    add = None

    async def since(self, number: int) -> tuple[Revocation, ...]:
        self._failures -= 1
        if self._failures >= 0:
            raise StorageError("the disk is on fire")
        return await self._store.revocations.since(number)


async def test_r4_a_store_that_fails_is_asked_again(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    caplog.set_level(logging.INFO, "broker.revocations")
    await store.revocations.add(order("grant", "x"))
    learnt = _Learnt()
    failing = Revocations(_Failing(store, 3), learnt)  # type: ignore[arg-type]
    following = asyncio.create_task(failing.follow())
    async with asyncio.timeout(20):
        await learnt.something.wait()
        await asyncio.sleep(0.01)
    following.cancel()
    messages = [record.message for record in caplog.records]
    assert len([one for one in messages if "on fire" in one]) == 1
    assert "revocations can be read again" in messages


async def test_r4_a_mark_that_is_not_private_is_read_again_once_it_is(
    store: SqliteStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    mark = tmp_path / "broker.revocations"
    mark.write_text("0\n")
    mark.chmod(0o644)
    learnt = _Learnt()
    following = asyncio.create_task(Revocations(store.revocations, learnt).follow())
    async with asyncio.timeout(20):
        while "chmod 600" not in caplog.text:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        mark.chmod(0o600)
        while not learnt.times:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    following.cancel()


async def test_r4_news_that_could_not_be_taken_is_told_again(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    await store.revocations.add(order("grant", "x"))
    learnt, told = _Learnt(), 0

    def learn(news: Sequence[Revocation], as_of: float) -> None:
        nonlocal told
        told += 1
        if told <= 3:
            raise RuntimeError("a defect")
        learnt(news, as_of)

    following = asyncio.create_task(Revocations(store.revocations, learn).follow())
    async with asyncio.timeout(20):
        await learnt.something.wait()
    following.cancel()
    assert learnt.news == ["x"]
    assert len([one for one in caplog.records if one.exc_info]) == 1


def test_a_revocation_is_seen_well_within_a_second() -> None:
    assert POLL_SECONDS <= 0.25
