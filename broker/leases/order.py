"""Policy decides once more: what is to be minted, for whom, for how long."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.errors import CredentialRefused
from broker.model import Deny, Lease
from providers.base import CredentialRequest

if TYPE_CHECKING:
    from broker.model import Grant, Service
    from broker.policy.engine import Policy
    from providers.base import Delivery

_CODES: Final = {"delivery": "delivery_refused", "reason": "reason_required"}
_SHORTEST_LIFE: Final = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an agent asks for: the credential of a scope.

    `service` and `provider`, where given, must be the scope's. With `again`, what the agent has
    been given before will do.
    """

    scope: str
    service: str | None = None
    provider: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What policy allows to be minted, and for whom: the agent, or the gateway (`delivery`)."""

    grant: Grant
    service: Service
    scope: str
    constraints: Any
    lifetime: int
    now: float
    delivery: Delivery = "credential"

    def lease(self) -> Lease:
        """Return the intent to mint it; it is due at once, should its owner's claim end."""
        life = max(self.lifetime, self.service.plugin.least_lifetime)
        return Lease(
            id=f"lease-{secrets.token_hex(10)}",
            grant=self.grant.jti,
            ancestors=self.grant.ancestors,
            agent=self.grant.agent,
            service=self.service.name,
            scope=self.scope,
            provider=self.service.provider,
            config=self.service.config.model_dump_json(),
            state="intent",
            created_at=self.now,
            grant_ends_at=self.now + self.lifetime,
            expires_at=self.now + life,
            due_at=self.now,
            delivery=self.delivery,
        )

    def request(self) -> CredentialRequest:
        """Return what to ask the provider for."""
        return CredentialRequest(
            service=self.service.name,
            agent=self.grant.agent,
            grant=self.grant.jti,
            scope=self.scope,
            task=self.grant.task,
            lifetime=self.lifetime,
            constraints=self.constraints,
        )


def decide(policy: Policy, grant: Grant, wanted: Wanted, now: float) -> Order:
    """Return what is to be minted for a grant.

    The credential lives as long as the grant, or as the scope lets a task token live. Raises
    `CredentialRefused`.
    """
    name = wanted.scope
    constraints = policy.collectable(name, grant)
    if isinstance(constraints, Deny):
        raise _denied(constraints)
    scope = policy.scopes[name]
    if wanted.service not in {None, scope.service}:
        raise CredentialRefused(
            "invalid_request", f"scope {name} is of service {scope.service}, and of no other"
        )
    kind = policy.services[scope.service].provider
    if wanted.provider not in {None, kind}:
        raise CredentialRefused(
            "invalid_request",
            f"scope {name} is of provider {kind}, whose credentials come at /credentials",
        )
    left = int(grant.expires_at - now)
    lifetime = left if scope.max_ttl is None else min(left, scope.max_ttl)
    if lifetime < _SHORTEST_LIFE:
        raise CredentialRefused("invalid_token", "the task token is about to expire")
    return Order(grant, policy.services[scope.service], name, constraints, lifetime, now)


def _denied(deny: Deny) -> CredentialRefused:
    could_ask = f"; its agent may ask for {', '.join(deny.scopes)}" if deny.scopes else ""
    return CredentialRefused(
        _CODES.get(deny.rule or "", "insufficient_scope"),
        deny.reason + could_ask,
        rule=deny.rule,
        allowed=deny.allowed,
    )
