"""A task token comes back for a credential: policy decides again, a provider mints it.

`Leases.mint` is that sentence. Before the provider is called the intent to do so is durable,
in the trail and in the store; whatever way a request leaves, it is on record, and what may
have been minted and did not reach the agent is ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.errors import (
    AuditUnavailable,
    BrokerError,
    ConfigurationError,
    CredentialRefused,
    CredentialUnavailable,
    InvalidToken,
    StorageError,
)
from broker.leases.base import CLAIM, next_look
from broker.leases.order import Wanted, decide
from broker.leases.record import Attempt
from broker.leases.repeats import Repeats
from providers.base import Mints, ProviderError, Renewable, Reserves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.leases.base import LeaseDesk
    from broker.leases.order import Order
    from broker.leases.repeats import Key
    from broker.model import Grant, Lease
    from broker.policy.engine import Policy
    from providers.base import CredentialRequest, Minted, Provider, Secret

MOST_PER_GRANT: Final = 20
"""How many credentials that are not over a grant may have."""

MOST_SKEW: Final = 60.0
"""How much longer than asked, in seconds, a credential may say that it lives: clocks differ."""

_log: Final = logging.getLogger(__name__)


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
    `InvalidToken`. Set `wake` to have the reaper look for work at once.
    """

    def __init__(
        self,
        desk: LeaseDesk,
        *,
        policy: Callable[[], Policy],
        grant: Callable[[bytes], Grant],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk: Final = desk
        self._policy: Final = policy
        self._grant: Final = grant
        self._monotonic: Final = monotonic
        self.wake: Final = asyncio.Event()
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
        try:
            attempt.grant = grant = self._verify(token)
            policy = self._policy()
            attempt.policy_version = policy.version
            order = decide(policy, grant, wanted, self._desk.clock())
            attempt.service = order.service.name
            key = (grant.jti, order.scope, policy.version) if wanted.again else None
            known = self._repeats.find(key, self._desk.clock()) if key else None
            if known is not None:
                return await self._repeat(attempt, known)
            await self._desk.trail.record(attempt.record("intent", "allow"))
            attempt.lease = lease = await self._open(order)
            return replace(await self._mint(attempt, order, lease, token), key=key)
        except CredentialRefused as refusal:
            await self._refuse(attempt, refusal)
            raise
        except BaseException as error:
            await self._fail(attempt, error)
            raise

    async def _repeat(self, attempt: Attempt, known: Issued) -> Issued:
        attempt.lease = known.lease
        await self._desk.trail.record(attempt.record("outcome", "allow", "handed out again"))
        return replace(known, operation=attempt.operation, again=True)

    async def refuse(self, refusal: CredentialRefused, source_address: str | None = None) -> None:
        """Put on record a request that was refused before it could be read."""
        attempt = Attempt(self._desk.clock, self._monotonic, None, source_address)
        await self._refuse(attempt, refusal)

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
            await self._end(lease, None)
        elif issued.key is not None:
            self._repeats.keep(issued.key, issued, self._desk.clock())
        return delivered

    async def abandon(self, issued: Issued, problem: str) -> None:
        """Have a credential revoked that did not reach the agent."""
        if not issued.again:
            await self._end(issued.lease, problem)

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

    async def _open(self, order: Order) -> Lease:
        lease = order.lease()
        store, until = self._desk.store, lease.created_at + CLAIM
        if not await store.open(lease, self._desk.owner, until, MOST_PER_GRANT):
            raise CredentialRefused(
                "too_many_credentials",
                f"the task token has {MOST_PER_GRANT} credentials already; use these, or ask "
                "for another task token",
            )
        return lease

    async def _mint(self, attempt: Attempt, order: Order, lease: Lease, token: bytes) -> Issued:
        progress = _Progress()
        try:
            self._verify(token)  # it may have been revoked before there was a lease to end
            minted = await self._ask(order, lease, progress)
            await self._keep(lease, minted, progress)
            self._verify(token)
            await self._desk.trail.record(attempt.record("outcome", "allow"))
        except BaseException as error:
            await self._give_up(lease, progress, error)
            raise
        return Issued(
            lease, minted.fields, minted.expires_at, progress.renewable, attempt.operation
        )

    async def _ask(self, order: Order, lease: Lease, progress: _Progress) -> Minted:
        """Have the provider mint, within the time that there is."""
        try:
            provider = self._desk.providers.of_service(order.service)
            async with asyncio.timeout(self._desk.patience):
                return await self._ask_provider(provider, order.request(), lease, progress)
        except TimeoutError:
            raise CredentialUnavailable(
                f"service {order.service.name} did not answer within {self._desk.patience:.0f} s",
                retryable=True,
            ) from None
        except ProviderError as error:
            raise CredentialUnavailable(
                str(error), retryable=error.retryable, untouched=error.untouched
            ) from None
        except ConfigurationError as error:
            raise CredentialUnavailable(str(error)) from None

    async def _ask_provider(
        self, provider: Provider, request: CredentialRequest, lease: Lease, progress: _Progress
    ) -> Minted:
        progress.renewable = isinstance(provider, Renewable)
        if isinstance(provider, Reserves):
            reserved = await provider.reserve(request)
            handle = self._desk.seal(lease.id, reserved.handle)
            if not await self._desk.store.reserve(lease.id, self._desk.owner, handle):
                raise _revoked()
            progress.held = True
            return await provider.mint_reserved(request, reserved)
        if not isinstance(provider, Mints):
            raise ProviderError(f"provider of service {request.service} mints no credentials")
        progress.asked = True
        return await provider.mint(request)

    async def _keep(self, lease: Lease, minted: Minted, progress: _Progress) -> None:
        """Store what it takes to end the credential, now that it exists."""
        handle = self._desk.seal(lease.id, minted.handle)
        now = self._desk.clock()
        state = await self._desk.store.minted(lease.id, handle, minted.expires_at, now)
        progress.held = True
        progress.renewable &= minted.renewable
        if state != "minted":
            raise _revoked()
        if minted.expires_at > lease.expires_at + MOST_SKEW:
            excess = minted.expires_at - lease.expires_at
            raise CredentialUnavailable(
                f"service {lease.service} minted a credential that outlives what was asked for "
                f"by {excess:.0f} s; it is being revoked"
            )

    async def _give_up(self, lease: Lease, progress: _Progress, error: BaseException) -> None:
        """Leave nothing behind of what did not work out."""
        if progress.held:
            await self._end(lease, _text(error))
            return
        definite = isinstance(error, CredentialUnavailable) and error.untouched
        store, owner, now = self._desk.store, self._desk.owner, self._desk.clock()
        with suppress(StorageError):  # then the reaper finds it once our claim is over
            if progress.asked and not definite:
                problem = f"nobody knows whether it was minted: {_text(error)}"
                await store.retry(lease, owner, lease.expires_at, problem, ending=False)
            else:
                problem = f"never minted: {_text(error)}"
                await store.close(lease, owner, "revoked", now, problem)

    async def _end(self, lease: Lease, problem: str | None) -> None:
        try:
            await self._desk.store.end(lease.id, self._desk.owner, self._desk.clock(), problem)
        except StorageError as error:
            _log.error("lease %s is to be revoked, and is once it is due: %s", lease.id, error)
        self.wake.set()

    async def _refuse(self, attempt: Attempt, refusal: CredentialRefused) -> None:
        detail = f"{refusal.code}: {refusal}"
        refusal.operation = attempt.operation
        await self._desk.trail.record(attempt.record("outcome", "deny", detail, refusal.rule))

    async def _fail(self, attempt: Attempt, error: BaseException) -> None:
        record = attempt.record("outcome", "error", _text(error))
        with suppress(AuditUnavailable):
            if isinstance(error, Exception):
                await self._desk.trail.record(record)
            else:
                self._desk.trail.append(record)  # cancelled: there is no time to wait


@dataclass(slots=True)
class _Progress:
    """How far minting has come.

    `asked` for a credential that nothing could end if the answer is lost; or its handle is
    `held` in the store.
    """

    asked: bool = False
    held: bool = False
    renewable: bool = False


def _revoked() -> CredentialRefused:
    return CredentialRefused("invalid_token", "the task token has been revoked")


def _text(error: BaseException) -> str:
    # The texts of our own errors hold no secret; of others we know nothing but their type.
    text = f": {error}" if isinstance(error, BrokerError) else ""
    return type(error).__name__ + text
