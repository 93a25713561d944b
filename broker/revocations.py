"""Keep what one process knows of revocations in step with the store that all share."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from broker.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.model import Revocation
    from broker.storage.base import Ended, RevocationStore

POLL_SECONDS: Final = 0.2
"""How long a revocation by another process may go unnoticed, but for the time to read it."""

_log: Final = logging.getLogger(__name__)


class Revocations:
    """Read revocations from the store, and make them there.

    `learn` is told of the new ones each time the store has been read, even if there are none,
    and of the moment of the monotonic clock as of which that is all.
    """

    def __init__(
        self,
        store: RevocationStore,
        learn: Callable[[Sequence[Revocation], float], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store: Final = store
        self._learn: Final = learn
        self._monotonic: Final = monotonic
        self._last = 0

    async def catch_up(self) -> None:
        """Read what is new; raise `StorageError` if that cannot be known."""
        as_of = self._monotonic()
        news = await self._store.since(self._last)
        self._learn(news, as_of)
        if news:
            self._last = max(self._last, news[-1].number)

    async def revoke(self, order: Revocation) -> Ended:
        """Make a revocation, which is in force here once this returns; raise `StorageError`."""
        ended = await self._store.add(order)
        await self.catch_up()
        return ended

    async def follow(self) -> None:
        """Catch up for ever, several times a second."""
        failing = False
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.catch_up()
            except StorageError as error:
                if not failing:
                    _log.error("revocations cannot be read; soon no token is good: %s", error)
                failing = True
            except Exception:  # noqa: BLE001 - a defect must not end this for good
                if not failing:
                    _log.exception("revocations cannot be taken; soon no token is good")
                failing = True
            else:
                if failing:
                    _log.info("revocations can be read again")
                failing = False
