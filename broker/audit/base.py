"""What an audit trail offers to those who must record before they act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.model import AuditRecord
    from broker.repeated import RepeatedRecord


class Trail(Protocol):
    """Append records durably, in order."""

    def append(
        self,
        record: AuditRecord | RepeatedRecord,
        durable: Callable[[Exception | None], None] | None = None,
    ) -> None:
        """Queue a record from the event loop; call `durable` on the loop once it is on disk.

        `durable` receives None, or the `AuditUnavailable` that kept the record from being
        written. A record without `durable` is written within milliseconds, and on disk a little
        later: it is for outcomes, which nothing waits for. Raises `AuditUnavailable` at once when
        the trail has failed or its queue is full.
        """
        ...

    async def record(self, record: AuditRecord) -> None:
        """Append a record and return once it is durable; raise `AuditUnavailable` otherwise."""
        ...


class BusyTrail(Trail, Protocol):
    """A trail for what happens so often that two records in place of one count."""

    def append_beside(
        self, record: RepeatedRecord, durable: Callable[[Exception | None], None]
    ) -> None:
        """Take a record of something that goes on meanwhile, and that nobody waits for yet.

        As `append`, but where much is written at once the record is written only when `press`
        is called, or within milliseconds. Until then it may change.
        """
        ...

    def press(self, record: RepeatedRecord) -> None:
        """Write a record that `append_beside` was given, for somebody waits for it now."""
        ...
