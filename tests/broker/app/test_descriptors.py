from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from broker.app.descriptors import CONTROL, RESERVED, room

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = 2 * 1000 + CONTROL + RESERVED


class System:
    """A system that gives a process so many descriptors."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        assert limits[1] == self.limits[1]
        self.limits = limits


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """Whatever a test does, this process keeps its limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def given(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> System:
    system = System(soft, hard)
    monkeypatch.setattr("broker.app.descriptors.resource.getrlimit", system.getrlimit)
    monkeypatch.setattr("broker.app.descriptors.resource.setrlimit", system.setrlimit)
    return system


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 20_000, NEEDED),
        (1024, resource.RLIM_INFINITY, NEEDED),
        (NEEDED, NEEDED, NEEDED),
        (50_000, 50_000, 50_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    system = given(monkeypatch, soft, hard)
    assert room(1000) == (1000, CONTROL)
    assert system.limits == (raised, hard)


@pytest.mark.parametrize("hard", [1, 256, 1024, 2048])
def test_with_fewer_there_are_fewer_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hard: int
) -> None:
    given(monkeypatch, min(hard, 512), hard)
    agents, control = room(1000)
    assert 16 <= agents < 1000
    assert 16 <= control <= CONTROL
    if hard >= 256 + 64:
        assert 2 * agents + control + RESERVED <= hard
    assert "raise its limit" in caplog.text
