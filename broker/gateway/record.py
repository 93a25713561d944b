"""Put on record what is about to happen, what has happened, and what was refused."""

from __future__ import annotations

import logging
import secrets
from itertools import count
from time import time
from typing import TYPE_CHECKING, Any, Final, Literal

from broker.errors import AuditUnavailable
from broker.model import AuditRecord
from broker.repeated import RecordTemplate, RepeatedRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.audit.base import BusyTrail
    from broker.gateway.authorize import Admission, Rejection
    from broker.gateway.metrics import GatewayMetrics
    from broker.gateway.request import Request

_log: Final = logging.getLogger(__name__)

ECHOED: Final = "credential echoed, scrubbed"
"""What the outcome says of a response in which the service's credential was replaced."""

Result = tuple[Literal["allow", "error"], int | None, str | None, bool]
"""How a request ended: decision, status (None: the agent got no whole answer), detail, and
whether the service's credential was replaced in the response."""


Facts = tuple[RecordTemplate, RecordTemplate]
"""What the intent of a request says, and what its outcome says if it went well."""

ACTION: Final = "proxy.request"

_STRANGERS_PATH: Final = 1 << 10
"""Bytes that are recorded of the path of a request without a good task token."""


class Recorder:
    """Write the gateway's audit records, and count the same for its metrics."""

    def __init__(
        self, trail: BusyTrail, redact_path: Callable[[bytes], str], metrics: GatewayMetrics
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
        *,
        beside: bool = False,
    ) -> RepeatedRecord:
        """Record that a request is about to be sent on; `durable` is called once that is safe.

        With `beside`, it is sent on at once, and nobody waits for the record before `press`.
        Returns the record, for `settle`. Raises `AuditUnavailable` if the trail cannot take it.
        """
        facts = admission.facts or self._facts(admission, source)
        intent = RepeatedRecord(time(), facts[0], self._operation())
        if beside:
            self._trail.append_beside(intent, durable)
        else:
            self._trail.append(intent, durable)
        return intent

    def press(self, intent: RepeatedRecord) -> None:
        """Have an intent made durable, for the response has begun and waits for that."""
        self._trail.press(intent)

    def answer(
        self,
        admission: Admission,
        intent: RepeatedRecord,
        status: int,
        seconds: float,
        sizes: tuple[int, int],
    ) -> None:
        """Have an intent made durable whose response is whole already, and waits for that.

        If it is not written yet it becomes the outcome: one record in place of two. Should the
        agent not get the response after all, `settle` adds another outcome.
        """
        facts = admission.facts
        if facts is not None and not intent.written and facts[0].record.detail is None:
            intent.time, intent.template = time(), facts[1]
            intent.status, intent.latency_ms = status, _milliseconds(seconds)
            intent.bytes_in, intent.bytes_out = sizes
        self._trail.press(intent)

    def settle(
        self,
        admission: Admission,
        intent: RepeatedRecord,
        result: Result,
        seconds: float,
        sizes: tuple[int, int],
    ) -> None:
        """Record how a request ended that was sent on, or was about to be.

        `seconds` is from the request's head to the end, `sizes` are the bytes of the request's
        body and of the response's.
        """
        decision, status, detail, echoed = result
        service, facts = admission.route.service.name, admission.facts
        if facts is None:
            raise RuntimeError("an outcome without an intent")
        self._metrics.count(service, decision, status, seconds)
        if echoed:
            self._metrics.count_echo(service)
            detail = f"{detail}; {ECHOED}" if detail else ECHOED
        fine = decision == "allow" and detail is None
        if fine and intent.template is facts[1]:
            return  # `answer` has put it on record
        self._trail.press(intent)  # before its outcome
        own = (status, _milliseconds(seconds), *sizes)
        record = RepeatedRecord(time(), facts[1], intent.operation, *own)
        try:
            self._trail.append(
                record if fine else record.whole()._replace(decision=decision, detail=detail)
            )
        except AuditUnavailable as error:
            # The intent stands, and says that the outcome is missing.
            _log.warning("an outcome is not on record: %s", error)

    def _facts(self, admission: Admission, source: str | None) -> Facts:
        request, grant, decision = admission.request, admission.grant, admission.decision
        target = _target(admission.path, request.query)
        said = (
            *(grant.agent, grant.issuer, grant.subject, grant.jti, grant.task, grant.reason),
            *(admission.route.service.name, decision.scope, decision.rule),
            *(request.method.decode(), self._redact_path(target)),
            *(None, None, None, None),
            *(decision.risk, admission.route.policy.version, source),
        )
        elsewhere = self._elsewhere(admission)
        admission.facts = (
            _template("intent", (*said, elsewhere)),
            _template("outcome", (*said, None)),
        )
        return admission.facts

    def _elsewhere(self, admission: Admission) -> str | None:
        """Return the second places, users, accounts and tenants that a request names, if any."""
        claim = admission.claim
        if claim is None:
            return None
        named = (*((field.key, field.value) for field in claim.elsewhere), *claim.behalf)
        return (
            "; ".join(f"{key.decode()}: {self._redact_path(value)}" for key, value in named) or None
        )

    def reject(self, rejection: Rejection, request: Request | None, source: str | None) -> bool:
        """Record a refusal; return False if the trail cannot take it."""
        refusal, service, path, grant, policy_version = rejection
        refused = refusal.decision
        self._metrics.count(service, refused, refusal.status)
        target = path if path is not None or request is None else request.path
        if target is not None and grant is not None and request is not None:
            target = _target(target, request.query)
        told = None if target is None else self._told(target, known=grant is not None)
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
            path=told,
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

    def _told(self, path: bytes, *, known: bool) -> str:
        """Return what the trail may keep of a path; of a stranger's, little is looked at."""
        if known or len(path) <= _STRANGERS_PATH:
            return self._redact_path(path)
        # What is cut in two could not be known for a secret.
        whole_segments = path[: path.rfind(b"/", 0, _STRANGERS_PATH) + 1]
        return f"{self._redact_path(whole_segments)}… [cut: {len(path)} bytes]"

    def _operation(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


def _target(path: bytes, query: bytes | None) -> bytes:
    return path if query is None else b"%b?%b" % (path, query)


def _template(phase: str, said: tuple[Any, ...]) -> RecordTemplate:
    # Past AuditRecord.__new__, for not every request repeats the one before.
    return RecordTemplate(tuple.__new__(AuditRecord, (0.0, ACTION, phase, "", "allow", *said)))


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6) / 1e3
