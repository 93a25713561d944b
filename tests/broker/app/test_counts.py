from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.app.counts import open_counts
from broker.app.home import Places, create_home, open_storage
from broker.errors import ConfigurationError
from broker.limits.local import LocalCounts
from broker.limits.memory import MemoryCounts
from broker.limits.redis import RedisCounts
from broker.settings import LimitsSettings, Settings

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
