"""A trail whose disk does as a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.errors import AuditUnavailable
from broker.repeated import RepeatedRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.model import AuditRecord

    Durable = Callable[[Exception | None], None]


@dataclass
class SlowTrail:
    """A trail that makes records durable when `settle` is called, or at once if `prompt`."""

    prompt: bool = False
    full: bool = False
    records: list[AuditRecord] = field(default_factory=list)
    waiting: list[Durable] = field(default_factory=list)

    def append(self, record: AuditRecord | RepeatedRecord, durable: Durable | None = None) -> None:
        if self.full:
            raise AuditUnavailable("no space left on the device")
        if isinstance(record, RepeatedRecord):
            record.written = True
            record = record.whole()
        self.records.append(record)
        if durable is None:
            return
        self.waiting.append(durable)
        if self.prompt:
            self.settle()

    def append_beside(self, record: RepeatedRecord, durable: Durable) -> None:
        self.append(record, durable)

    def press(self, record: RepeatedRecord) -> None:
        """Do nothing, for every record is taken at once."""

    async def record(self, record: AuditRecord) -> None:
        self.append(record)

    def settle(self, error: Exception | None = None) -> None:
        """Tell everybody who waits that their records are durable, or why not."""
        waiting, self.waiting = self.waiting, []
        for durable in waiting:
            durable(error)

    @property
    def outcomes(self) -> list[AuditRecord]:
        return [record for record in self.records if record.phase == "outcome"]
