from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from limits import RateLimitItemPerMinute
from prometheus_client import CollectorRegistry, generate_latest

from broker.errors import LimitsUnavailable, StorageError
from broker.limits.base import FREE, Ticket
from broker.limits.limiter import Limiter, exceeded
from broker.limits.memory import MemoryCounts
from broker.limits.quota import Exceeded, Quota
from broker.storage.sqlite import SqliteStorage
from tests.contracts.counts import place, rate, rated, total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "broker.db")
    yield storage
    await storage.close()


@pytest.fixture
def limiter(storage: SqliteStorage) -> Limiter:
    return Limiter(MemoryCounts(storage.totals))


def shown(limiter: Limiter) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(limiter)
    lines = generate_latest(registry).decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("broker_limit_refusals_t")]
    return {labels.partition("{")[2].rstrip("}"): float(value) for labels, _, value in found}


async def test_counts_what_it_refuses_by_where_and_kind(limiter: Limiter) -> None:
    rates, places, totals = rated(rate(RateLimitItemPerMinute(1))), place(1), total(1, "k")
    for quota in (rates, places):
        assert isinstance(limiter.take_now(quota, "gateway"), Ticket)
        for _ in range(2):
            assert isinstance(limiter.take_now(quota, "gateway"), Exceeded)
    assert limiter.take_now(totals, "gateway") is None
    assert await limiter.take(totals, "credentials") is FREE
    assert isinstance(await limiter.take(totals, "credentials"), Exceeded)
    limiter.refused("gateway", "response_bytes")
    assert shown(limiter) == {
        'limit="rate",where="gateway"': 2,
        'limit="concurrent",where="gateway"': 2,
        'limit="total",where="credentials"': 1,
        'limit="response_bytes",where="gateway"': 1,
    }


async def test_what_cannot_be_counted_is_unavailable(
    limiter: Limiter, storage: SqliteStorage
) -> None:
    await storage.close()
    with pytest.raises(LimitsUnavailable, match="closed"):
        await limiter.take(total(1, "k"), "gateway")
    assert shown(limiter) == {'limit="unavailable",where="gateway"': 1}


async def test_a_place_is_given_back_once(limiter: Limiter) -> None:
    quota = place(1)
    ticket = await limiter.take(quota, "gateway")
    assert isinstance(ticket, Ticket)
    assert isinstance(await limiter.take(quota, "gateway"), Exceeded)
    limiter.give_back(ticket)
    assert isinstance(await limiter.take(quota, "gateway"), Ticket)
    limiter.give_back(FREE)


async def test_what_takes_no_time_is_counted_alike(limiter: Limiter) -> None:
    quota = rated(rate(RateLimitItemPerMinute(1)))
    assert await exceeded(limiter, quota, "token") is None
    over = await exceeded(limiter, quota, "token")
    assert over is not None
    assert over.kind == "rate"
    assert await exceeded(limiter, None, "token") is None
    assert await exceeded(None, None, "token") is None
    assert await exceeded(None, Quota(), "token") is None
    with pytest.raises(StorageError, match="nothing counts"):
        await exceeded(None, quota, "token")
