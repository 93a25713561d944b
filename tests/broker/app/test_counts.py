from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from broker.allowance import Limits
from broker.app.counts import UsedTotal, open_counts, used_totals
from broker.app.home import Places, create_home, open_storage
from broker.errors import ConfigurationError
from broker.limits.local import LocalCounts
from broker.limits.memory import MemoryCounts
from broker.limits.quota import quota_of
from broker.limits.redis import RedisCounts
from broker.model import Agent, Scope
from broker.settings import LimitsSettings, Settings
from tests.contracts.storage import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.storage.sqlite import SqliteStorage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home")
    create_home(settings)
    return settings


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[SqliteStorage]:
    storage = open_storage(settings)
    yield storage
    await storage.close()


async def test_one_process_counts_in_memory(settings: Settings, storage: SqliteStorage) -> None:
    counts = open_counts(settings, storage)
    assert isinstance(counts, MemoryCounts)
    await counts.close()
    assert not Places(settings.home).limits.exists()


async def test_several_share_a_private_file(settings: Settings, storage: SqliteStorage) -> None:
    counts = open_counts(replace(settings, workers=2), storage)
    assert isinstance(counts, LocalCounts)
    await counts.close()
    assert Places(settings.home).limits.stat().st_mode & 0o777 == 0o600


async def test_a_file_of_something_else_is_not_used(
    settings: Settings, storage: SqliteStorage
) -> None:
    Places(settings.home).limits.touch(mode=0o644)
    Places(settings.home).limits.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"limits\.db"):
        open_counts(replace(settings, workers=2), storage)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(
    ("url", "warns"),
    [
        ("redis://127.0.0.1:6379/3", False),
        ("redis://localhost", False),
        ("rediss://counts.example:6379", False),
        ("unix:///run/redis.sock", False),
        ("redis://counts.example:6379", True),
    ],
)
async def test_many_brokers_share_a_server(  # noqa: PLR0913 - a table of two sides
    settings: Settings,
    storage: SqliteStorage,
    caplog: pytest.LogCaptureFixture,
    url: str,
    workers: int,
    *,
    warns: bool,
) -> None:
    limits = LimitsSettings(url=url)
    counts = open_counts(replace(settings, limits=limits, workers=workers), storage)
    assert isinstance(counts, RedisCounts)
    await counts.close()
    assert ("can be read on the way" in caplog.text) == warns


async def test_tells_how_much_of_each_total_is_used(storage: SqliteStorage) -> None:
    root = replace(PLAIN, jti="root", agent="bot", scopes=("x.read", "x.other"))
    child = replace(root, jti="child", ancestors=("root",), scopes=("x.read",))
    scope = Scope("x.read", "x", (), (), frozenset({"proxy"}), None, limits=Limits(total=9))
    other = replace(scope, name="x.other", limits=Limits(concurrent=1))
    policy: Any = SimpleNamespace(
        scopes={"x.read": scope, "x.other": other},
        agents={"bot": Agent("bot", (), limits=Limits(total=100))},
    )
    assert await used_totals(policy, storage.totals, root) == (
        UsedTotal("scope x.read: total 9", 0, 9),
        UsedTotal("agent bot: total 100", 0, 100),
    )
    for grant, times in ((root, 2), (child, 3)):
        quota = quota_of(policy, grant, "x.read")
        assert quota is not None
        for _ in range(times):
            await storage.totals.count([(cap.key, cap.most) for cap in quota.totals], 2e9)
    found = {
        grant.jti: [one.used for one in await used_totals(policy, storage.totals, grant)]
        for grant in (root, child)
    }
    assert found == {"root": [5, 5], "child": [5, 5]}  # what is left to the child is the root's
