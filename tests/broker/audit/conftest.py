"""Where the tests of the trail write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.audit.journal import Journal
from tests.broker.audit.trails import NOON, signing_key, trusted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder for a trail, not made yet."""
    return tmp_path / "audit"


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no head written meanwhile, which commits what waits."""
    monkeypatch.setattr("broker.audit.journal.HEAD_SECONDS", 3600.0)


@pytest.fixture
def journal(directory: Path) -> Journal:
    """A journal at noon, not opened yet."""
    return Journal(directory, signing_key(), trusted(), clock=lambda: NOON)
