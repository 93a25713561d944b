"""Write down how much each grant is used, for whoever looks at the sessions there are."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from broker.errors import StorageError
from broker.storage.base import Use

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.grants import Grants
    from broker.storage.base import Storage

NOTE_EVERY: Final = 2.0
"""Seconds by which what the store says of a grant's use may be late."""

_log: Final = logging.getLogger(__name__)


async def note_use(grants: Grants, storage: Storage, every: float = NOTE_EVERY) -> None:
    """Take the use of grants to the store for ever, and once more when cancelled."""
    unsaved: dict[str, Use] = {}
    try:
        while True:
            await asyncio.sleep(every)
            await _save(grants, storage, unsaved)
    finally:
        await _save(grants, storage, unsaved)


async def _save(grants: Grants, storage: Storage, unsaved: dict[str, Use]) -> None:
    """Save what there is; what cannot be saved is kept for the next time."""
    _merge(unsaved, grants.take_uses())
    if not unsaved:
        return
    uses = dict(unsaved)
    unsaved.clear()  # what the store has been given it writes, even if we are not there to hear
    try:
        await storage.note_use(uses)
    except StorageError as error:
        _merge(unsaved, uses)
        _log.warning("the use of task tokens could not be noted: %s", error)


def _merge(into: dict[str, Use], more: Mapping[str, Use]) -> None:
    for jti, use in more.items():
        before = into[jti].requests if jti in into else 0
        into[jti] = Use(before + use.requests, use.used_at)
