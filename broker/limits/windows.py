"""Take a request's rates all at once or not at all, from any storage of the `limits` library."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter

from broker.errors import StorageError
from broker.limits.quota import Exceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.limits.quota import Quota, Window
    from broker.storage.base import TotalStore


class WindowStorage(Storage, MovingWindowSupport):
    """A storage of the `limits` library that keeps moving windows, and no other counts.

    `clock` is the monotonic one; the library's own storages go by the wall clock, which may be
    set back.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock: Final = clock

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the storage raises when it fails."""
        return StorageError

    @abstractmethod
    def take_back(self, key: str, limit: int) -> None:
        """Undo the last entry of a key's window, made in this same step."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: fixed windows let through twice as much at their edges."""
        raise NotImplementedError("only moving windows are kept here")

    def get(self, key: str) -> int:
        """Refuse, as `incr` does."""
        raise NotImplementedError("only moving windows are kept here")

    def get_expiry(self, key: str) -> float:
        """Refuse, as `incr` does."""
        raise NotImplementedError("only moving windows are kept here")

    def check(self) -> bool:
        """Say that it is there, for whoever opened it."""
        return True


class Windows:
    """The moving windows in one storage, for whoever has it to himself while a method runs."""

    def __init__(self, storage: WindowStorage) -> None:
        self._strategy: Final = MovingWindowRateLimiter(storage)
        self._storage: Final = storage

    def take(self, windows: Sequence[Window]) -> Exceeded | None:
        """Count a request in each window; or in none, and say which it would exceed."""
        for index, window in enumerate(windows):
            if not self._strategy.hit(window.item, window.key):
                for taken in windows[:index]:
                    self._storage.take_back(taken.count_key, taken.item.amount)
                # By now there may be room: but this one has not been counted.
                return self.full(windows) or Exceeded("rate", window.name, 1)
        return None

    def full(self, windows: Sequence[Window]) -> Exceeded | None:
        """Return the full window that takes the longest to have room again, if one is full."""
        longest = None
        for window in windows:
            stats = self._strategy.get_window_stats(window.item, window.key)
            if stats.remaining <= 0:
                wait = whole_seconds(stats.reset_time - self._storage.clock())
                if longest is None or wait > longest.wait:
                    longest = Exceeded("rate", window.name, wait)
        return longest


async def count_totals(store: TotalStore, quota: Quota) -> Exceeded | None:
    """Count a request in each of its totals; or in none, and say which is used up."""
    if not quota.totals:
        return None
    counts = [(total.key, total.most) for total in quota.totals]
    full = await store.count(counts, quota.until)
    return None if full is None else total_used_up(quota, full)


def total_used_up(quota: Quota, index: int) -> Exceeded:
    """Return which total is used up; that ends with the grant alone."""
    return Exceeded("total", quota.totals[index].name, whole_seconds(quota.until - time.time()))


def whole_seconds(seconds: float) -> int:
    """Return how long to wait, in whole seconds and at least one (`Retry-After`)."""
    return max(1, math.ceil(seconds))
