"""Put on record what is about to happen, what has happened, and what was refused."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from broker.errors import AuditUnavailable
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.audit.base import Trail
    from broker.gateway.authorize import Admission, Rejection
    from broker.gateway.metrics import GatewayMetrics
    from broker.gateway.request import Request

ACTION: Final = "proxy.request"


class Outcome(NamedTuple):
    """How a request ended: its status, or None where the agent got no whole answer.

    `seconds` is from its head to its end; `bytes_in` and `bytes_out` are of the bodies.
    """

    decision: Literal["allow", "error"]
    status: int | None
    seconds: float
    bytes_in: int
    bytes_out: int
    detail: str | None = None


class Recorder:
    """Write the gateway's audit records, and count the same for its metrics."""

    def __init__(
        self, trail: Trail, redact_path: Callable[[bytes], str], metrics: GatewayMetrics
    ) -> None:
        self._trail = trail
        self._redact_path = redact_path
        self._metrics = metrics
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    def intend(
        self,
        admission: Admission,
        source: str | None,
        durable: Callable[[Exception | None], None],
    ) -> AuditRecord:
        """Record that a request is about to be sent on; `durable` is called once that is safe.

        Returns the record. Raises `AuditUnavailable` if the trail cannot take it.
        """
        request, route, grant, decision, path, policy = admission
        target = path if request.query is None else b"%b?%b" % (path, request.query)
        # By position: this is made for each request, and keywords would double its cost.
        record = AuditRecord(
            time.time(),
            ACTION,
            "intent",
            self._operation(),
            "allow",
            grant.agent,
            grant.issuer,
            grant.subject,
            grant.jti,
            grant.task,
            grant.reason,
            route.service.name,
            decision.scope,
            decision.rule,
            request.method.decode(),
            self._redact_path(target),
            None,
            None,
            None,
            None,
            decision.risk,
            policy.version,
            source,
        )
        self._trail.append(record, durable)
        return record

    def settle(self, intent: AuditRecord, outcome: Outcome) -> None:
        """Record how a request ended that was sent on, or was about to be."""
        decision, status, seconds, bytes_in, bytes_out, detail = outcome
        self._metrics.count(intent.service, decision, status, seconds)
        record = AuditRecord(
            time.time(),
            ACTION,
            "outcome",
            intent[3],
            decision,
            *intent[5:16],
            status,
            round(seconds * 1000, 3),
            bytes_in,
            bytes_out,
            *intent[20:23],
            detail,
        )
        # The intent stands, and says that the outcome is missing.
        with suppress(AuditUnavailable):
            self._trail.append(record)

    def reject(self, rejection: Rejection, request: Request | None, source: str | None) -> bool:
        """Record a refusal; return False if the trail cannot take it."""
        refusal, service, path, grant, policy_version = rejection
        refused: Literal["deny", "error"] = "deny" if refusal.status < 500 else "error"  # noqa: PLR2004 - server errors
        self._metrics.count(service, refused, refusal.status)
        target = path if path is not None or request is None else request.path
        record = AuditRecord(
            time=time.time(),
            action=ACTION,
            phase="outcome",
            operation=self._operation(),
            decision=refused,
            agent=grant.agent if grant else None,
            issuer=grant.issuer if grant else None,
            subject=grant.subject if grant else None,
            grant=grant.jti if grant else None,
            task=grant.task if grant else None,
            reason=grant.reason if grant else None,
            service=service,
            rule=refusal.rule,
            method=request.method.decode() if request else None,
            path=self._redact_path(target) if target is not None else None,
            status=refusal.status,
            policy_version=policy_version,
            source_address=source,
            detail=f"{refusal.code}: {refusal.note or refusal.detail}",
        )
        try:
            self._trail.append(record)
        except AuditUnavailable:
            return False
        return True

    def _operation(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"
