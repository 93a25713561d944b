"""A task token comes back for a credential: policy decides again, a provider mints it.

`Leases.mint` is that sentence. Before the provider is called the intent to do so is durable,
in the trail and in the store; whatever way a request leaves, it is on record, and what may
have been minted and did not reach the agent is ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.errors import CredentialRefused, InvalidToken, TooManyCredentials
from broker.leases.base import next_look
from broker.leases.making import make, refuse, watch
from broker.leases.order import Wanted, decide
from broker.leases.record import Attempt
from broker.leases.repeats import Repeats
from broker.limits.limiter import exceeded
from broker.limits.quota import quota_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.leases.base import LeaseDesk
    from broker.leases.order import Order
    from broker.leases.repeats import Key
    from broker.limits.limiter import Limiter
    from broker.model import Grant, Lease
    from broker.policy.engine import Policy
    from providers.base import Secret


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential on its way to the agent; `operation` names its record in the trail.

    By `key` it is remembered once the agent has it, where it may be wanted again; what is handed
    out `again` the agent has already.
    """

    lease: Lease
    fields: Mapping[str, Secret]
    expires_at: float
    renewable: bool
    operation: str
    key: Key | None = None
    again: bool = False


class Leases:
    """Mint credentials for task tokens, and see to it that each of them ends.

    `policy` returns the policy in force; `grant` returns the grant of a task token or raises
    `InvalidToken`. Set `wake` to have the reaper look for work at once. Without a `limiter`
    nothing that policy limits is minted.
    """

    def __init__(
        self,
        desk: LeaseDesk,
        *,
        policy: Callable[[], Policy],
        grant: Callable[[bytes], Grant],
        limiter: Limiter | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk: Final = desk
        self._limiter: Final = limiter
        self._policy: Final = policy
        self._grant: Final = grant
        self._monotonic: Final = monotonic
        self.wake: Final = desk.wake
        self.stats: Final = desk.stats
        self._repeats: Final = Repeats()

    async def mint(
        self,
        token: bytes,
        scope: str,
        service: str | None = None,
        source_address: str | None = None,
    ) -> Issued:
        """Mint a credential under one scope of a task token, for the agent to collect.

        Call `delivered` when the agent has it, or `abandon`. `service`, where it is given,
        must be the scope's.

        Raises:
            CredentialRefused: the caller must change something; says what.
            CredentialUnavailable: the provider cannot mint, now or at all.
            StorageError, AuditUnavailable: the broker cannot do its work now.
        """
        return await self._issue(token, Wanted(scope, service), source_address)

    async def collect(
        self, token: bytes, scope: str, provider: str, source_address: str | None = None
    ) -> Issued:
        """Mint as `mint` does, unless the agent has a credential of this kind that is still good.

        For clients that ask before each call. `provider` must be that of the scope's service.
        """
        wanted = Wanted(scope, provider=provider, again=True)
        return await self._issue(token, wanted, source_address)

    async def _issue(self, token: bytes, wanted: Wanted, source_address: str | None) -> Issued:
        attempt = Attempt(self._desk.clock, self._monotonic, wanted.scope, source_address)
        return await watch(self._desk, attempt, self._find_or_make(attempt, token, wanted))

    async def _find_or_make(self, attempt: Attempt, token: bytes, wanted: Wanted) -> Issued:
        attempt.grant = grant = self._verify(token)
        policy = self._policy()
        attempt.policy_version = policy.version
        order = decide(policy, grant, wanted, self._desk.clock())
        attempt.service = order.service.name
        key = (grant.jti, order.scope, policy.version) if wanted.again else None
        known = self._repeats.find(key, self._desk.clock()) if key else None
        if known is not None:
            return await self._repeat(attempt, known)
        await self._count(policy, order)
        made = await make(self._desk, attempt, order, partial(self._verify, token))
        fields, expires_at = made.minted.fields, made.minted.expires_at
        return Issued(made.lease, fields, expires_at, made.renewable, attempt.operation, key)

    async def _count(self, policy: Policy, order: Order) -> None:
        """Count a credential as one request of its scope, its agents and its grant."""
        quota = quota_of(policy, order.grant, order.scope)
        over = await exceeded(self._limiter, quota and quota.minting(), "credentials")
        if over is not None:
            raise TooManyCredentials(over.name, over.wait)

    async def _repeat(self, attempt: Attempt, known: Issued) -> Issued:
        attempt.lease = known.lease
        await self._desk.trail.record(attempt.record("outcome", "allow", "handed out again"))
        return replace(known, operation=attempt.operation, again=True)

    async def refuse(self, refusal: CredentialRefused, source_address: str | None = None) -> None:
        """Put on record a request that was refused before it could be read."""
        attempt = Attempt(self._desk.clock, self._monotonic, None, source_address)
        await refuse(self._desk, attempt, refusal)

    async def delivered(self, issued: Issued) -> bool:
        """Note that the agent has the credential; False if it is being revoked already."""
        lease = issued.lease
        if issued.again:
            return True
        due_at = next_look(
            self._desk.clock(), issued.expires_at, lease.grant_ends_at, renewable=issued.renewable
        )
        delivered = await self._desk.store.delivered(lease.id, due_at)
        if not delivered:
            await self._desk.end(lease, None)
        elif issued.key is not None:
            self._repeats.keep(issued.key, issued, self._desk.clock())
        return delivered

    async def abandon(self, issued: Issued, problem: str) -> None:
        """Have a credential revoked that did not reach the agent."""
        if not issued.again:
            await self._desk.end(issued.lease, problem)

    async def end_grant(self, jti: str) -> int:
        """Revoke every credential of a grant and of all that descend from it; return how many.

        They are marked when this returns, and ended as soon as their upstreams can be reached.
        """
        self._repeats.forget(jti)
        ended = await self._desk.store.end_grant(jti, self._desk.clock())
        self.wake.set()
        return ended

    def _verify(self, token: bytes) -> Grant:
        try:
            return self._grant(token)
        except InvalidToken as error:
            raise CredentialRefused("invalid_token", str(error)) from None
