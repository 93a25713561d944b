"""Put on record what is about to happen, what has happened, and what was refused."""

from __future__ import annotations

import logging
import secrets
from itertools import count
from time import time
from typing import TYPE_CHECKING, Final, Literal

from broker.errors import AuditUnavailable
from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.audit.base import Trail
    from broker.gateway.authorize import Admission, Rejection
    from broker.gateway.metrics import GatewayMetrics
    from broker.gateway.request import Request

_log: Final = logging.getLogger(__name__)

ECHOED: Final = "credential echoed, scrubbed"
"""What the outcome says of a response in which the service's credential was replaced."""

Result = tuple[Literal["allow", "error"], int | None, str | None]
"""How a request ended: decision, status (None: the agent got no whole answer), detail."""

ACTION: Final = "proxy.request"


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
        request, grant, decision = admission.request, admission.grant, admission.decision
        target = admission.path
        if request.query is not None:
            target = b"%b?%b" % (target, request.query)
        # Past the checks of AuditRecord.__new__, for this is done twice for each request.
        record = tuple.__new__(
            AuditRecord,
            (
                time(),
                ACTION,
                "intent",
                f"{self._prefix}-{next(self._numbers)}",
                "allow",
                grant.agent,
                grant.issuer,
                grant.subject,
                grant.jti,
                grant.task,
                grant.reason,
                admission.route.service.name,
                decision.scope,
                decision.rule,
                request.method.decode(),
                self._redact_path(target),
                None,
                None,
                None,
                None,
                decision.risk,
                admission.route.policy.version,
                source,
                None,
            ),
        )
        self._trail.append(record, durable)
        return record

    def settle(
        self,
        intent: AuditRecord,
        result: Result,
        seconds: float,
        sizes: tuple[int, int],
        *,
        echoed: bool = False,
    ) -> None:
        """Record how a request ended that was sent on, or was about to be.

        `seconds` is from the request's head to the end, `sizes` are the bytes of the request's
        body and of the response's. `echoed` says that the credential was replaced in it.
        """
        decision, status, detail = result
        self._metrics.count(intent[11], decision, status, seconds)
        if echoed:
            self._metrics.count_echo(intent[11])
            detail = f"{detail}; {ECHOED}" if detail else ECHOED
        latency_ms = int(seconds * 1e6) / 1e3
        bytes_in, bytes_out = sizes
        # Taken apart and put together at once, which costs half of what slices do.
        # fmt: off
        (
            _, _, _, operation, _, agent, issuer, subject, grant, task, reason, service,
            scope, rule, method, path, _, _, _, _, risk, policy_version, source, _,
        ) = intent
        fields = (
            time(), ACTION, "outcome", operation, decision, agent, issuer, subject, grant,
            task, reason, service, scope, rule, method, path, status, latency_ms, bytes_in,
            bytes_out, risk, policy_version, source, detail,
        )
        # fmt: on
        record = tuple.__new__(AuditRecord, fields)
        try:
            self._trail.append(record)
        except AuditUnavailable as error:
            # The intent stands, and says that the outcome is missing.
            _log.warning("an outcome is not on record: %s", error)

    def reject(self, rejection: Rejection, request: Request | None, source: str | None) -> bool:
        """Record a refusal; return False if the trail cannot take it."""
        refusal, service, path, grant, policy_version = rejection
        refused = refusal.decision
        self._metrics.count(service, refused, refusal.status)
        target = path if path is not None or request is None else request.path
        record = AuditRecord(
            time=time(),
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
        return f"{self._prefix}-{next(self._numbers)}"
