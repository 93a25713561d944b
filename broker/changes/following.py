"""Keep the policy that is in force in step with what the store keeps."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from broker.changes.edits import documents_of
from broker.errors import Problem, StorageError
from broker.policy.references import KEPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.policy.source import Document
    from broker.storage.base import KeptPolicy, PolicyHistory

POLL_SECONDS: Final = 0.5
"""How long a change by another process may go unnoticed, but for the time to load it."""

_log: Final = logging.getLogger(__name__)


class PolicyFollower:
    """Keep what one process has in force in step with the store that all share.

    `put` puts the kept entries' documents in force; `kept` is what was put in force at first.
    `doubt` is told why it cannot be known what is kept, and with no problem that it can again.
    """

    def __init__(
        self,
        history: PolicyHistory,
        put: Callable[[tuple[Document, ...]], Awaitable[None]],
        doubt: Callable[[tuple[Problem, ...]], None],
        kept: KeptPolicy,
    ) -> None:
        self._history: Final = history
        self._put: Final = put
        self._doubt: Final = doubt
        self._number = kept.number

    async def catch_up(self) -> None:
        """Put in force what is new; raise `StorageError` if that cannot be known."""
        number = await self._history.number()
        if number == self._number:
            return
        kept = await self._history.kept()
        await self._put(documents_of(kept))
        self._number = kept.number

    async def follow(self) -> None:
        """Catch up for ever; while the store cannot be read, the last policy stays in force."""
        failing = False
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.catch_up()
            except StorageError as error:
                if not failing:
                    _log.error("changes to the policy cannot be read: %s", error)
                self._doubt((unreadable(error),))
                failing = True
            except Exception:  # noqa: BLE001 - a defect must not end this for good
                if not failing:
                    _log.exception("changes to the policy cannot be put in force")
                failing = True
            else:
                self._doubt(())
                failing = False


def unreadable(error: StorageError) -> Problem:
    """Return what is wrong with a policy of which it is not known what the store keeps of it."""
    return Problem(KEPT, 1, 1, str(error))
