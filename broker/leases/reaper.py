"""End what has been minted, in time, however often that takes; renew what should live longer.

Every worker has a reaper, and a lease that is due is any one's: whoever claims it works on it.
An end that fails is tried again for ever, ever less often; until it is done the lease is there
to be seen, with what stands in its way.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from broker.errors import AuditUnavailable, ConfigurationError, StorageError
from broker.leases.base import CLAIM, next_look
from broker.leases.record import revocation
from providers.base import ProviderError, Renewable, Reserves, Revocable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.leases.base import LeaseDesk
    from broker.model import Lease

    T = TypeVar("T")

AT_ONCE: Final = 4
"""Leases that one worker works on at the same time."""

POLL: Final = 2.0
"""How long, in seconds, until a reaper sees what another worker has left to do."""

LONGEST_PAUSE: Final = 300.0
"""The longest wait, in seconds, before another attempt to end a lease."""

_FIRST_PAUSE: Final = 0.5
_MOST_DOUBLINGS: Final = 12
_log: Final = logging.getLogger(__name__)


class Reaper:
    """Work on leases that are due, until cancelled; `wake` is set when there is something new."""

    def __init__(self, desk: LeaseDesk, wake: asyncio.Event, poll: float = POLL) -> None:
        self._desk: Final = desk
        self._wake: Final = wake
        self._poll: Final = poll

    async def run(self) -> None:
        """Look for work and do it, for ever."""
        while True:
            self._wake.clear()
            try:
                worked = await self.reap()
                self._desk.stats.states = await self._desk.store.counts()
            except StorageError as error:
                _log.warning("leases cannot be looked after: %s", error)
                worked = 0
            if not worked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._wake.wait()

    async def reap(self) -> int:
        """Work on some of the leases that are due; return how many."""
        now = self._desk.clock()
        leases = await self._desk.store.claim(self._desk.owner, now, now + CLAIM, AT_ONCE)
        await asyncio.gather(*(self._look_after(lease) for lease in leases))
        return len(leases)

    async def _look_after(self, lease: Lease) -> None:
        now = self._desk.clock()
        try:
            # What is a gateway's comes here once its grant, its time or the gateway is over.
            agents = lease.state == "delivered" and lease.delivery == "credential"
            if agents and now < min(lease.expires_at, lease.grant_ends_at):
                await self._renew(lease, now)
            else:
                await self._end(lease, now)
        except StorageError as error:
            _log.warning("lease %s waits until it is claimed again: %s", lease.id, error)

    async def _renew(self, lease: Lease, now: float) -> None:
        """Let a credential live on towards its grant's end; one that cannot just ends."""
        end = min(lease.expires_at, lease.grant_ends_at)
        problem = None
        try:
            expires_at = await self._ask(self._prolong, lease, int(lease.grant_ends_at - now))
        except _Failure as failure:
            problem = f"not renewed: {failure}"
            expires_at = lease.expires_at
            due_at = min(end, now + max(1.0, (end - now) / 3)) if failure.retryable else end
        else:
            gained = expires_at > lease.expires_at + 1
            due_at = next_look(now, expires_at, lease.grant_ends_at, renewable=gained)
        await self._desk.store.renewed(lease.id, self._desk.owner, expires_at, due_at, problem)

    async def _prolong(self, lease: Lease, lifetime: int) -> float:
        provider = self._desk.providers.of_lease(lease)
        if lease.handle is None or not isinstance(provider, Renewable):
            raise ProviderError("its provider renews nothing")
        return await provider.renew(self._desk.unseal(lease.id, lease.handle), lifetime)

    async def _end(self, lease: Lease, now: float) -> None:
        """Revoke a credential, or see it expire where that is all that can be done."""
        try:
            revoked = await self._ask(self._revoke, lease)
        except _Failure as failure:
            await self._postpone(lease, now, str(failure))
            return
        over = now >= lease.expires_at
        if not (revoked or over):
            await self._wait_for(lease)
        elif await self._desk.store.close(
            lease, self._desk.owner, "expired" if over else "revoked", self._desk.clock()
        ):
            self._desk.stats.revoked += revoked
            self._note(lease, "allow", "revoked" if revoked else "expired")

    async def _revoke(self, lease: Lease) -> bool:
        """Return False where there is nothing by which it could be revoked."""
        provider = self._desk.providers.of_lease(lease)
        if lease.handle is None:
            # A hold's handle is stored before anything is minted under it: nothing has been.
            return isinstance(provider, Reserves)
        if not isinstance(provider, Revocable):
            return False
        await provider.revoke(self._desk.unseal(lease.id, lease.handle))
        return True

    async def _wait_for(self, lease: Lease) -> None:
        known = lease.handle is not None
        problem = "its provider revokes nothing" if known else "nobody knows whether it was minted"
        await self._desk.store.retry(
            lease, self._desk.owner, lease.expires_at, f"{problem}; it ends by itself", ending=known
        )

    async def _postpone(self, lease: Lease, now: float, problem: str) -> None:
        pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(lease.attempts, _MOST_DOUBLINGS))
        # Jitter, or all the leases of a Vault that was down would come back to it at once.
        due_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._desk.stats.failed += 1
        _log.warning("lease %s of %s is not revoked yet: %s", lease.id, lease.service, problem)
        await self._desk.store.retry(lease, self._desk.owner, due_at, problem, ending=True)
        if lease.attempts == 0:
            self._note(lease, "error", f"not revoked yet, and tried again until it is: {problem}")

    async def _ask(self, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Return what a provider answers in the time that it has; raise `_Failure` otherwise."""
        try:
            async with asyncio.timeout(self._desk.patience):
                return await call(*arguments)
        except TimeoutError:
            raise _Failure(f"no answer within {self._desk.patience:.0f} s") from None
        except ProviderError as error:
            raise _Failure(str(error), retryable=error.retryable) from None
        except ConfigurationError as error:
            raise _Failure(str(error)) from None
        except Exception as error:  # noqa: BLE001 - a defect of one must not keep others from ending
            raise _Failure(f"the provider failed with {type(error).__name__}") from None

    def _note(self, lease: Lease, decision: Literal["allow", "error"], detail: str) -> None:
        """Put an end on record. It happens even if that fails: it takes rights, and gives none."""
        try:
            self._desk.trail.append(revocation(lease, self._desk.clock(), decision, detail))
        except AuditUnavailable as error:
            _log.error("lease %s %s, and this is not on record: %s", lease.id, detail, error)


class _Failure(Exception):
    """Why a provider did not do what it was asked; its text holds no secret."""

    def __init__(self, text: str, *, retryable: bool = True) -> None:
        super().__init__(text)
        self.retryable = retryable
