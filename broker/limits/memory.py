"""Counts of one process, in its memory: nothing to wait for, and nothing that can fail."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from broker.limits.base import FREE, Ticket
from broker.limits.quota import Exceeded
from broker.limits.windows import Windows, WindowStorage, count_totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.limits.quota import Quota
    from broker.storage.base import TotalStore

_SWEEP_AT: Final = 1_024


class MemoryStorage(WindowStorage):
    """Moving windows in memory; what is over is forgotten while counting, without a thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._entries: Final[dict[str, tuple[deque[float], int]]] = {}
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return len(self._entries)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add entries to a window if there is room for all of them."""
        entries = self._current(key, expiry)
        if len(entries) + amount > limit:
            return False
        entries.extend([self.clock()] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        """Return when the oldest entry in the window was made, and how many there are."""
        entries = self._current(key, expiry)
        return (entries[0], len(entries)) if entries else (self.clock(), 0)

    def take_back(self, key: str, limit: int) -> None:  # noqa: ARG002
        """Undo the last entry of a key's window."""
        self._entries[key][0].pop()

    def clear(self, key: str) -> None:
        """Forget a key."""
        self._entries.pop(key, None)

    def reset(self) -> int:
        """Forget everything; return how many keys there were."""
        number = len(self._entries)
        self._entries.clear()
        return number

    def _current(self, key: str, expiry: int) -> deque[float]:
        """Return the entries that are in the window now."""
        known = self._entries.get(key)
        if known is None:
            self._sweep()
            known = self._entries[key] = deque(), expiry
        entries = known[0]
        begin = self.clock() - expiry
        while entries and entries[0] < begin:
            entries.popleft()
        return entries

    def _sweep(self) -> None:
        """Forget keys whose windows are over, now and then."""
        if len(self._entries) < self._sweep_at:
            return
        now = self.clock()
        over = [
            key
            for key, (entries, expiry) in self._entries.items()
            if not entries or entries[-1] < now - expiry
        ]
        for key in over:
            del self._entries[key]
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._entries))


class MemoryCounts:
    """Count what one process does (`broker.limits.base.Counts`).

    Totals must outlast the process, so `totals` keeps them; `clock` is the monotonic one.
    """

    def __init__(self, totals: TotalStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._totals: Final = totals
        self._windows: Final = Windows(MemoryStorage(clock))
        self._taken: Final[dict[str, int]] = {}

    def take_now(self, quota: Quota) -> Ticket | Exceeded | None:
        """Count a request at once, unless it has totals."""
        return None if quota.totals else self._take(quota)

    async def take(self, quota: Quota) -> Ticket | Exceeded:
        """Count a request; of one that is refused anyway, the totals are not touched."""
        refused = self._full(quota) or self._windows.full(quota.windows)
        refused = refused or await count_totals(self._totals, quota)
        if refused is not None:
            return refused
        outcome = self._take(quota)
        if isinstance(outcome, Exceeded) and quota.totals:
            await self._totals.uncount([total.key for total in quota.totals])
        return outcome

    def give_back(self, ticket: Ticket) -> None:
        """Give back a request's places."""
        for place in ticket.places:
            left = self._taken[place.key] - 1
            if left:
                self._taken[place.key] = left
            else:
                del self._taken[place.key]

    async def keep(self) -> None:
        """Do nothing: what is held dies with the process."""

    async def check(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _take(self, quota: Quota) -> Ticket | Exceeded:
        refused = self._full(quota) or self._windows.take(quota.windows)
        if refused is not None:
            return refused
        if not quota.places:
            return FREE
        for place in quota.places:
            self._taken[place.key] = self._taken.get(place.key, 0) + 1
        return Ticket(quota.places)

    def _full(self, quota: Quota) -> Exceeded | None:
        for place in quota.places:
            if self._taken.get(place.key, 0) >= place.most:
                return Exceeded("concurrent", place.name, 1)
        return None
