"""Keep what is minted for the gateway: one credential a grant and purpose, each with a lease.

The gateway asks here when it has no credential at hand, and every few seconds while it uses one;
never for each request. What is at hand is used while the lease is this process's to use: its
claim is kept up in the store, so that of a process that has died the reaper of another, or of
the next, ends what was left within `HOLD` seconds. A claim lasts no longer than the grant:
then it ends in the same way, and so it does at once when the grant is revoked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from broker.errors import (
    AuditUnavailable,
    ConfigurationError,
    CredentialRefused,
    CredentialUnavailable,
    StorageError,
)
from broker.leases.making import make, revoked, watch
from broker.leases.record import Attempt
from providers.base import Presents, ProviderError, Renewable, Revocable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.leases.base import LeaseDesk
    from broker.leases.making import Made
    from broker.leases.order import Order
    from broker.model import Grant, Lease
    from providers.base import Injection, Minted

HOLD: Final = 40.0
"""How long, in seconds, a credential is this process's to use unless it says so again."""

LOOK: Final = 10.0
"""Seconds between two times that it says so."""

IDLE: Final = 600.0
"""Seconds after which a credential that no request has needed is given up, if it can be ended."""

SPARE: Final = 120.0
"""How long before its end, in seconds, a credential is replaced; of one with a short life, a
fifth of that."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds for which nothing is minted after it has failed; twice as long each time that something
may have been made which nobody can end, lest an outage use up what a grant may have."""

_MARGIN: Final = 5.0
_LAST_ENDS: Final = 5.0

_log: Final = logging.getLogger(__name__)

Key = tuple[str, str, str, str, str, str]
"""All that a credential depends on: service, provider, its configuration; grant (with agent, task
and claims), scope, constraints as filled in."""


@dataclass(slots=True)
class _Kept:
    """A credential in use. Times are by the monotonic clock, but for `held_by_wall`.

    For the store goes by the wall clock, which sees a machine that was suspended.
    `lasts_until` is when to try again to get a better one, where that has failed.
    """

    order: Order
    lease: Lease
    minted: Minted
    injection: Injection
    provider: Presents
    renewable: bool
    ends: float
    life: float
    asked_at: float
    held_until: float = 0.0
    held_by_wall: float = 0.0
    lasts_until: float = 0.0

    def hold(self, now: float, wall: float) -> None:
        """Note that it has been held as of a moment, by either clock."""
        self.held_until, self.held_by_wall = now + HOLD - _MARGIN, wall + HOLD - _MARGIN

    def drop(self) -> None:
        """Note that it is held no more."""
        self.held_until = 0.0

    def left(self, now: float, wall: float, spare: float = 0.0) -> float:
        """Return for how many seconds it may be used; by either clock, for both can fail."""
        end = min(self.minted.expires_at, self.lease.grant_ends_at)
        held = min(self.held_until - now, self.held_by_wall - wall)
        return min(self.ends - now - spare, end - wall - spare, held)

    def fresh(self, now: float, wall: float) -> float:
        """Return for how many seconds none is better: another would live longer, then."""
        longest = self.minted.expires_at >= self.lease.grant_ends_at - 1
        spared = not longest and now >= self.lasts_until
        return self.left(now, wall, min(SPARE, self.life / 5) if spared else 0.0)


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why nothing was minted, and until when that is the answer, by the monotonic clock."""

    text: str
    retryable: bool
    pause: float
    until: float

    def error(self) -> ProviderError:
        """Return that answer anew: one that is raised again and again would grow."""
        return ProviderError(self.text, retryable=self.retryable)


class Proxied:
    """Supply the gateway with credentials that are minted; belongs to one event loop.

    `is_revoked` says whether a grant is known to have been revoked.
    """

    def __init__(
        self,
        desk: LeaseDesk,
        is_revoked: Callable[[Grant], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk: Final = desk
        self._is_revoked: Final = is_revoked
        self._monotonic: Final = monotonic
        self._kept: Final[dict[Key, _Kept]] = {}
        self._making: Final[dict[Key, asyncio.Task[_Kept]]] = {}
        self._failed: Final[dict[Key, _Failed]] = {}
        self._closing = False

    async def injection(self, order: Order, policy_version: str) -> Injection:
        """Return what to write into requests of a grant; mint it unless it is at hand.

        Whoever else needs the same meanwhile waits for the same minting. Raises `ProviderError`.
        """
        if order.lifetime < 1:
            raise ProviderError("the task token is about to expire")
        key = _key(order)
        known = self._kept.get(key)
        if known is not None and self._fresh(known) > 0:
            kept = known
        else:
            try:
                kept = await asyncio.shield(self._make_once(key, order, policy_version))
            except ProviderError as error:
                still_held = known is not None and self._kept.get(key) is known
                if known is None or not (error.retryable and still_held and self._good(known)):
                    raise
                kept = known
                kept.lasts_until = self._monotonic() + LOOK
        kept.asked_at = self._monotonic()
        return replace(kept.injection, fresh_for=max(0.0, min(self._fresh(kept), LOOK)))

    def forget(self, is_revoked: Callable[[Grant], bool]) -> None:
        """Use nothing more of grants that have been revoked; the store has marked it to end."""
        for key in [key for key, kept in self._kept.items() if is_revoked(kept.order.grant)]:
            del self._kept[key]

    async def look_after(self) -> None:
        """Keep up the claims on what is in use, for ever."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self.hold()
            except StorageError as error:
                _log.warning("credentials in use cannot be held, and soon not used: %s", error)

    async def hold(self) -> None:
        """Say what this process goes on using; raise `StorageError` if that cannot be kept."""
        for key in [key for key, kept in self._kept.items() if self._over(kept)]:
            del self._kept[key]  # its claim is not kept up, and then it is ended
        before = self._monotonic() - LONGEST_PAUSE
        for key in [key for key, failed in self._failed.items() if failed.until < before]:
            del self._failed[key]
        if not self._kept:
            return
        by_lease = {kept.lease.id: key for key, kept in self._kept.items()}
        now, wall = self._monotonic(), self._desk.clock()
        held = await self._desk.store.hold(by_lease.keys(), self._desk.owner, wall + HOLD)
        for lease, key in by_lease.items():
            kept = self._kept.get(key)
            if kept is None or kept.lease.id != lease:
                continue  # replaced, or revoked, meanwhile
            if lease in held:
                kept.hold(now, wall)
            else:
                del self._kept[key]

    async def close(self) -> None:
        """Give up everything, and wait a moment for the reaper to end it."""
        self._closing = True
        if self._making:
            making = tuple(self._making.values())
            await asyncio.wait(making, timeout=_LAST_ENDS)
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)
        leases = [kept.lease for kept in self._kept.values()]
        self._kept.clear()
        await asyncio.gather(*(self._desk.end(lease, None) for lease in leases))
        with suppress(TimeoutError, StorageError):
            async with asyncio.timeout(_LAST_ENDS):
                await self._tried(lease.id for lease in leases)

    async def _tried(self, leases: Iterable[str]) -> None:
        """Return once the end of each has been tried."""
        for lease in leases:
            while True:
                found = await self._desk.store.lease(lease)
                if found is None or found.due_at is None or found.attempts:
                    break
                await asyncio.sleep(0.02)

    def _fresh(self, kept: _Kept) -> float:
        return kept.fresh(self._monotonic(), self._desk.clock())

    def _good(self, kept: _Kept) -> bool:
        return kept.left(self._monotonic(), self._desk.clock()) > 0

    def _over(self, kept: _Kept) -> bool:
        idle = self._monotonic() - kept.asked_at > IDLE and isinstance(kept.provider, Revocable)
        return idle or not self._good(kept)

    def _make_once(self, key: Key, order: Order, policy_version: str) -> asyncio.Task[_Kept]:
        task = self._making.get(key)
        if task is None:
            failed = self._failed.get(key)
            if failed is not None and self._monotonic() < failed.until:
                raise failed.error()
            task = asyncio.create_task(self._make(key, order, policy_version))
            self._making[key] = task
            task.add_done_callback(partial(self._made, key))
        return task

    def _made(self, key: Key, task: asyncio.Task[_Kept]) -> None:
        del self._making[key]
        if not task.cancelled():
            task.exception()  # whoever waited for it may be gone

    async def _make(self, key: Key, order: Order, policy_version: str) -> _Kept:
        """Renew what is at hand, or mint; raise `ProviderError` if neither can be done now."""
        known = self._kept.get(key)
        if known is not None and known.renewable and await self._renew(known):
            return known
        try:
            kept = await self._mint(order, policy_version)
        except CredentialUnavailable as error:
            self._fail(key, str(error), retryable=error.retryable, untouched=error.untouched)
        except CredentialRefused as error:
            self._fail(key, str(error), retryable=False, untouched=True)
        except (StorageError, AuditUnavailable) as error:
            self._fail(key, str(error), retryable=True, untouched=True)
        self._failed.pop(key, None)
        if self._closing or self._is_revoked(order.grant):
            await self._desk.end(kept.lease, "not used: the grant or the broker has ended")
            raise ProviderError("the task token has been revoked, or the broker stops")
        self._kept[key] = kept
        return kept

    def _fail(self, key: Key, text: str, *, retryable: bool, untouched: bool) -> NoReturn:
        """Raise what is the answer for a while."""
        before = self._failed.get(key)
        pause = FIRST_PAUSE
        if before is not None and not untouched:
            pause = min(LONGEST_PAUSE, before.pause * 2)
        failed = _Failed(text, retryable, pause, self._monotonic() + pause)
        self._failed[key] = failed
        raise failed.error() from None

    async def _mint(self, order: Order, policy_version: str) -> _Kept:
        provider = self._provider(order)
        attempt = Attempt(self._desk.clock, self._monotonic, order.scope, None)
        attempt.grant, attempt.service = order.grant, order.service.name
        attempt.policy_version = policy_version
        good = partial(self._require_good, order.grant)
        made = await watch(self._desk, attempt, make(self._desk, attempt, order, good))
        try:
            return await self._use(order, provider, made)
        except BaseException as error:
            told = str(error) if isinstance(error, ProviderError) else type(error).__name__
            await self._desk.end(made.lease, f"not used: {told}")
            raise

    async def _use(self, order: Order, provider: Presents, made: Made) -> _Kept:
        """Note that what has been made is in use from now on."""
        injection = provider.present(made.minted, order.request())
        now, wall = self._monotonic(), self._desk.clock()
        expires_at = made.minted.expires_at
        until = min(wall + HOLD, expires_at, made.lease.grant_ends_at)
        if not await self._desk.store.use(made.lease.id, self._desk.owner, expires_at, until):
            raise revoked()
        kept = _Kept(
            order=order,
            lease=made.lease,
            minted=made.minted,
            injection=injection,
            provider=provider,
            renewable=made.renewable,
            ends=now + expires_at - wall,
            life=expires_at - wall,
            asked_at=now,
        )
        kept.hold(now, wall)
        return kept

    async def _renew(self, kept: _Kept) -> bool:
        """Let what is at hand live longer; False where another must be minted."""
        now, wall = self._monotonic(), self._desk.clock()
        lifetime = int(kept.lease.grant_ends_at - wall)
        held = kept.left(now, wall) > 0
        if not held or lifetime < 1 or not isinstance(kept.provider, Renewable):
            return False
        try:
            async with asyncio.timeout(self._desk.patience):
                expires_at = await kept.provider.renew(kept.minted.handle, lifetime)
            until = min(wall + HOLD, expires_at, kept.lease.grant_ends_at)
            used = await self._desk.store.use(kept.lease.id, self._desk.owner, expires_at, until)
        except (ProviderError, StorageError, TimeoutError):
            return False
        if not used:  # it is being ended
            kept.drop()
            return False
        if expires_at <= kept.minted.expires_at + 1:
            return False
        kept.minted = replace(kept.minted, expires_at=expires_at)
        kept.life = expires_at - wall
        kept.ends = now + kept.life
        kept.hold(now, wall)
        return True

    def _provider(self, order: Order) -> Presents:
        try:
            provider = self._desk.providers.of_service(order.service)
        except ConfigurationError as error:
            raise CredentialUnavailable(str(error)) from None
        if not isinstance(provider, Presents):
            raise CredentialUnavailable(
                f"provider {order.service.provider} mints nothing that goes into a request"
            )
        return provider

    def _require_good(self, grant: Grant) -> None:
        if self._is_revoked(grant):
            raise revoked()


def _key(order: Order) -> Key:
    service = order.service
    return (
        service.name,
        service.provider,
        service.config.model_dump_json(),
        order.grant.jti,
        order.scope,
        order.constraints.model_dump_json(),
    )
