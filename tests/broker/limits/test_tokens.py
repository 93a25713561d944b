from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from broker.allowance import Limits, Rate
from broker.errors import LimitsUnavailable, TokenRefused
from broker.limits.limiter import Limiter
from broker.limits.memory import MemoryCounts
from broker.limits.tokens import count_token
from broker.model import Agent
from broker.storage.sqlite import SqliteStorage
from tests.contracts.storage import CLAIM, GRANT, PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIMITED = Agent("release-bot", (), limits=Limits((Rate(2, "minute"),), total=1))
POLICY: Any = SimpleNamespace(agents={"release-bot": LIMITED, "b": Agent("b", ())}, scopes={})


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "broker.db")
    yield storage
    await storage.close()


@pytest.fixture
def limiter(storage: SqliteStorage) -> Limiter:
    return Limiter(MemoryCounts(storage.totals))


async def test_an_agent_gets_as_many_tokens_as_its_rate_says(
    limiter: Limiter, storage: SqliteStorage
) -> None:
    for _ in range(2):
        await count_token(limiter, POLICY, GRANT, CLAIM, storage)
    with pytest.raises(TokenRefused) as refusal:
        await count_token(limiter, POLICY, GRANT, CLAIM, storage)
    assert refusal.value.error == "temporarily_unavailable"
    assert "agent release-bot: rate 2/minute" in str(refusal.value)
    assert refusal.value.cause == "limit_exceeded"
    assert 1 <= (refusal.value.retry_after or 0) <= 60


async def test_an_agent_without_a_rate_is_not_counted(
    limiter: Limiter, storage: SqliteStorage
) -> None:
    for counter in (limiter, None):
        for _ in range(5):
            await count_token(counter, POLICY, PLAIN, None, storage)


async def test_without_anything_that_counts_there_is_no_token(storage: SqliteStorage) -> None:
    with pytest.raises(LimitsUnavailable):
        await count_token(None, POLICY, GRANT, CLAIM, storage)


async def test_a_proof_that_was_used_before_is_not_counted(
    limiter: Limiter, storage: SqliteStorage
) -> None:
    assert await storage.spend(CLAIM)
    for _ in range(5):
        await count_token(limiter, POLICY, GRANT, CLAIM, storage)
    for _ in range(2):
        await count_token(limiter, POLICY, GRANT, None, storage)
    with pytest.raises(TokenRefused):
        await count_token(limiter, POLICY, GRANT, None, storage)
