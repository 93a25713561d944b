"""What the audit trail is told of credentials."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Literal

from broker.model import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.model import Grant, Lease

MINT: Final = "credential.mint"
REVOKE: Final = "credential.revoke"


class Attempt:
    """One request on its way, and what is known of it when its record is written."""

    def __init__(
        self,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        scope: str | None,
        source_address: str | None,
    ) -> None:
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._started: Final = monotonic()
        self._scope: Final = scope
        self._source_address: Final = source_address
        self.operation: Final = secrets.token_hex(8)
        self.grant: Grant | None = None
        self.service: str | None = None
        self.lease: Lease | None = None
        self.policy_version: str | None = None

    def record(
        self,
        phase: Literal["intent", "outcome"],
        decision: Literal["allow", "deny", "error"],
        detail: str | None = None,
        rule: str | None = None,
    ) -> AuditRecord:
        """Return the record of what is known now."""
        grant = self.grant
        elapsed = self._monotonic() - self._started
        told = [f"lease {self.lease.id}"] if self.lease else []
        if self.lease is not None and self.lease.delivery == "proxy":
            told.append("for the gateway")
        return AuditRecord(
            time=self._clock(),
            action=MINT,
            phase=phase,
            operation=self.operation,
            decision=decision,
            agent=grant.agent if grant else None,
            issuer=grant.issuer if grant else None,
            subject=grant.subject if grant else None,
            grant=grant.jti if grant else None,
            task=grant.task if grant else None,
            reason=grant.reason if grant else None,
            service=self.service,
            scope=self._scope,
            rule=rule,
            latency_ms=round(elapsed * 1000, 3) if phase == "outcome" else None,
            policy_version=self.policy_version,
            source_address=self._source_address,
            detail="; ".join([*told, detail] if detail else told) or None,
        )


def revocation(
    lease: Lease, now: float, decision: Literal["allow", "error"], detail: str
) -> AuditRecord:
    """Return the record of a lease's end, or of why it could not be ended yet."""
    return AuditRecord(
        time=now,
        action=REVOKE,
        phase="outcome",
        operation=secrets.token_hex(8),
        decision=decision,
        agent=lease.agent,
        grant=lease.grant,
        service=lease.service,
        scope=lease.scope,
        detail="; ".join(filter(None, (f"lease {lease.id}", detail, lease.problem))),
    )
