"""A gateway whose policy limits the tester, its requests counted in each way that there is."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from broker.limits.local import LocalCounts
from broker.limits.memory import MemoryCounts
from broker.limits.redis import RedisCounts
from broker.storage.sqlite import SqliteStorage
from tests.fakes.gateway import AGENT, gateway_bench, policy_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.limits.base import Counts
    from tests.components.redis import Redis
    from tests.fakes.gateway import GatewayBench

WAYS = ("memory", "local", "redis")


def limited(scope: str = "", agent: str = "", other: str = "") -> str:
    """The usual policy with limits, in a policy's words, of api.all and keyed.all and the tester.

    There is a second agent of the same rights and without limits.
    """
    text = policy_text()
    for name, limits in (("api", scope), ("keyed", other)):
        if limits:
            plain = f'{name}.all: {{service: {name}, allow: ["* /**"],'
            assert plain in text
            text = text.replace(plain, f"{plain} limits: {limits},")
    begin = text.index(f"  {AGENT}:")
    quiet = text[begin:].replace(AGENT, "quiet")
    return f"{text}\n{f'    limits: {agent}' if agent else ''}\n{quiet}\n"


@asynccontextmanager
async def opened_counts(way: str, directory: Path, url: str) -> AsyncIterator[Counts]:
    """What counts in this way, with a database of its own."""
    async with AsyncExitStack() as stack:
        storage = SqliteStorage(directory / "broker.db")
        stack.push_async_callback(storage.close)
        counts: Counts = MemoryCounts(storage.totals)
        if way == "local":
            counts = LocalCounts(directory / "limits.db", storage.totals)
        elif way == "redis":
            counts = RedisCounts(url)
        stack.push_async_callback(counts.close)
        yield counts


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def counts(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Counts]:
    """Counts in this way that begin at nothing."""
    url = ""
    if way == "redis":
        server: Redis = request.getfixturevalue("redis")
        server.forget()
        url = server.url
    async with opened_counts(way, tmp_path, url) as counts:
        yield counts


@pytest.fixture
async def metered(counts: Counts, tmp_path: Path) -> AsyncIterator[GatewayBench]:
    """A gateway that counts so; its policy is for the test to `load`."""
    async with gateway_bench(tmp_path / "audit", counts=counts) as bench:
        yield bench
