"""Change the policy for administrators: on record before anything is done, and afterwards."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import (
    AuditUnavailable,
    BrokerError,
    InvalidRequest,
    PolicyConflict,
    PolicyError,
    StorageError,
)
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from broker.audit.base import Trail
    from broker.changes.edits import Edit
    from broker.changes.keeping import Changed, KeptPolicies

ACTION: Final = "policy.change"

_NAMED: Final = 20
_CALLERS_FAULT: Final = (InvalidRequest, PolicyConflict, PolicyError)


@dataclass(frozen=True, slots=True)
class _Who:
    by: str
    comment: str | None
    source: str | None


def told(edits: Sequence[Edit]) -> str:
    """Return what edits do, for the record."""
    named = [f"{'set' if edit.body is not None else 'remove'} {edit.place}" for edit in edits]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


class RecordedChanges:
    """Make changes that are audited: intent, then outcome, with who, why and which version.

    `in_force` puts what the store keeps in force here, and raises `StorageError` if it cannot.
    """

    def __init__(
        self,
        kept: KeptPolicies,
        trail: Trail,
        in_force: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept: Final = kept
        self._trail: Final = trail
        self._in_force: Final = in_force
        self._clock: Final = clock

    async def change(
        self, edits: Sequence[Edit], *, by: str, comment: str | None, source: str | None
    ) -> Changed:
        """Make a change; raises as `KeptPolicies.change` does, and `AuditUnavailable`."""
        return await self._recorded(
            told(edits),
            lambda: self._kept.change(edits, by=by, comment=comment, now=self._clock()),
            _Who(by, comment, source),
        )

    async def rollback(
        self, number: int, *, by: str, comment: str | None, source: str | None
    ) -> Changed:
        """Have all be as at version `number`; raises as `KeptPolicies.rollback` does."""
        return await self._recorded(
            f"rollback to version {number}",
            lambda: self._kept.rollback(number, by=by, comment=comment, now=self._clock()),
            _Who(by, comment, source),
        )

    async def _recorded(
        self, detail: str, do: Callable[[], Awaitable[Changed]], who: _Who
    ) -> Changed:
        record = AuditRecord(
            time=self._clock(),
            action=ACTION,
            phase="intent",
            operation=secrets.token_hex(8),
            decision="allow",
            subject=who.by,
            reason=who.comment,
            source_address=who.source,
            detail=detail,
        )
        await self._trail.record(record)
        # Not given up when the caller hangs up: what was announced is done, and its end recorded.
        return await asyncio.shield(asyncio.ensure_future(self._finish(record, do)))

    async def _finish(self, intent: AuditRecord, do: Callable[[], Awaitable[Changed]]) -> Changed:
        outcome = intent._replace(phase="outcome")
        try:
            changed = await do()
        except BaseException as error:
            # Only the texts of our own errors are known to hold no secret.
            cause = str(error) if isinstance(error, BrokerError) else type(error).__name__
            refused = outcome._replace(
                time=self._clock(),
                decision="deny" if isinstance(error, _CALLERS_FAULT) else "error",
                detail=f"{intent.detail}: {cause}",
            )
            with suppress(AuditUnavailable):  # the intent stands; that its outcome is missing shows
                await self._trail.record(refused)
            raise
        with suppress(StorageError):  # it is stored; what follows the store finds it later
            await self._in_force()
        made = changed.change
        came = f"version {made.number}, sha256:{made.digest}" if made else "all was so before"
        await self._trail.record(
            outcome._replace(
                time=self._clock(),
                policy_version=changed.policy.version,
                detail=f"{intent.detail}: {came}",
            )
        )
        return changed
