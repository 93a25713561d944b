from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerHour, RateLimitItemPerMinute

from broker.limits.memory import MemoryStorage
from broker.limits.quota import Exceeded
from broker.limits.windows import Windows, whole_seconds
from tests.contracts.counts import rate


@given(st.floats(-1e6, 1e6))
def test_a_wait_is_whole_and_at_least_a_second(seconds: float) -> None:
    wait = whole_seconds(seconds)
    assert wait >= max(1, seconds)
    assert wait == max(1, math.ceil(seconds))


def test_all_windows_are_taken_or_none() -> None:
    now = 100.0
    windows = Windows(MemoryStorage(lambda: now))
    wide, narrow = rate(RateLimitItemPerHour(3)), rate(RateLimitItemPerMinute(1))
    assert windows.take([wide, narrow]) is None
    for _ in range(5):
        assert windows.take([wide, narrow]) == Exceeded("rate", narrow.name, 60)
    assert windows.full([wide]) is None
    assert windows.take([wide]) is None
    assert windows.take([wide]) is None
    assert windows.full([wide, narrow]) == Exceeded("rate", wide.name, 3600)


def test_what_is_refused_as_a_window_gets_room_again_is_still_refused() -> None:
    times = iter([100.0, 100.0, 160.0])  # the entry is in the window as late as that, inclusive
    windows = Windows(MemoryStorage(lambda: next(times, 160.001)))
    one = rate(RateLimitItemPerMinute(1))
    assert windows.take([one]) is None
    assert windows.take([one]) == Exceeded("rate", one.name, 1)
    assert windows.take([one]) is None
    assert windows.take([one]) is not None


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_count_is_never_full(count: int) -> None:
    windows = Windows(MemoryStorage())
    assert windows.full([rate(RateLimitItemPerHour(1))][:count]) is None
    assert windows.take([]) is None
