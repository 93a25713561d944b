"""Audit records by what they have of their own: cheap to make and to write down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.model import AuditRecord


class RecordTemplate:
    """What the records of a request have in common with those of the next one that repeats it.

    Of `record`, that is all but its time, operation, status, latency and sizes. `encoded` belongs
    to the writer of the trail, which keeps there what it has made of it.
    """

    __slots__ = ("encoded", "record")

    def __init__(self, record: AuditRecord) -> None:
        self.record = record
        self.encoded: str | None = None


class RepeatedRecord:
    """An `AuditRecord` as a template and what differs from it; it may change until `written`.

    So long as its line is not made, the intent of an operation can become its outcome. `written`
    and `beside` belong to the writer of the trail: `beside` is whom it tells that the record is
    durable, while it has not begun to write it (`broker.audit.base.BusyTrail`).
    """

    __slots__ = (
        "beside",
        "bytes_in",
        "bytes_out",
        "latency_ms",
        "operation",
        "status",
        "template",
        "time",
        "written",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - the fields of a record
        self,
        time: float,
        template: RecordTemplate,
        operation: str,
        status: int | None = None,
        latency_ms: float | None = None,
        bytes_in: int | None = None,
        bytes_out: int | None = None,
    ) -> None:
        self.time = time
        self.template = template
        self.operation = operation
        self.status = status
        self.latency_ms = latency_ms
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.written = False
        self.beside: Callable[[Exception | None], None] | None = None

    def whole(self) -> AuditRecord:
        """Return the record with all that it says."""
        return self.template.record._replace(
            time=self.time,
            operation=self.operation,
            status=self.status,
            latency_ms=self.latency_ms,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )
