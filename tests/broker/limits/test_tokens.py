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
from tests.contracts.storage import GRANT, PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIMITED = Agent("release-bot", (), limits=Limits((Rate(2, "minute"),), total=1))
POLICY: Any = SimpleNamespace(agents={"release-bot": LIMITED, "b": Agent("b", ())}, scopes={})


@pytest.fixture
async def limiter(tmp_path: Path) -> AsyncIterator[Limiter]:
    storage = SqliteStorage(tmp_path / "broker.db")
    yield Limiter(MemoryCounts(storage.totals))
    await storage.close()


async def test_an_agent_gets_as_many_tokens_as_its_rate_says(limiter: Limiter) -> None:
    for _ in range(2):
        await count_token(limiter, POLICY, GRANT)
    with pytest.raises(TokenRefused) as refusal:
        await count_token(limiter, POLICY, GRANT)
    assert refusal.value.error == "temporarily_unavailable"
    assert "agent release-bot: rate 2/minute" in str(refusal.value)
    assert refusal.value.cause == "limit_exceeded"
    assert 1 <= (refusal.value.retry_after or 0) <= 60


async def test_an_agent_without_a_rate_is_not_counted(limiter: Limiter) -> None:
    for counter in (limiter, None):
        for _ in range(5):
            await count_token(counter, POLICY, PLAIN)


async def test_without_anything_that_counts_there_is_no_token() -> None:
    with pytest.raises(LimitsUnavailable):
        await count_token(None, POLICY, GRANT)
