"""Have a provider mint what policy has allowed, with a lease that is there before it is.

Whoever the credential is for: before the provider is called the intent to do so is durable, in
the trail and in the store; whatever comes of it is on record, and what may have been minted and
must not be used is ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from broker.errors import (
    AuditUnavailable,
    BrokerError,
    ConfigurationError,
    CredentialRefused,
    CredentialUnavailable,
    StorageError,
)
from broker.leases.base import CLAIM
from providers.base import Mints, ProviderError, Renewable, Reserves, Revocable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from broker.leases.base import LeaseDesk
    from broker.leases.order import Order
    from broker.leases.record import Attempt
    from broker.model import Lease
    from providers.base import CredentialRequest, Delivery, Minted, Provider

    T = TypeVar("T")

MOST: Final[Mapping[Delivery, int]] = MappingProxyType({"credential": 20, "proxy": 100})
"""How many credentials that are not over a grant may have: for its agent, for the gateway."""

MOST_SKEW: Final = 60.0
"""How much longer than asked, in seconds, a credential may say that it lives: clocks differ."""


@dataclass(frozen=True, slots=True)
class Made:
    """A credential that exists, its lease (`minted`), and whether it can be renewed."""

    lease: Lease
    minted: Minted
    renewable: bool


async def make(
    desk: LeaseDesk, attempt: Attempt, order: Order, require_good: Callable[[], object]
) -> Made:
    """Mint what is ordered, and return it once its making is on record.

    `require_good` raises `CredentialRefused` if the order's grant has been revoked by now.

    Raises:
        CredentialRefused: the grant has been revoked, or has too many credentials.
        CredentialUnavailable: the provider cannot mint, now or at all.
        StorageError, AuditUnavailable: the broker cannot do its work now.
    """
    await desk.trail.record(attempt.record("intent", "allow"))
    attempt.lease = lease = await _open(desk, order)
    progress = _Progress()
    try:
        require_good()  # it may have been revoked before there was a lease to end
        minted = await _ask(desk, order, lease, progress)
        await _keep(desk, lease, minted, progress)
        require_good()
        await desk.trail.record(attempt.record("outcome", "allow"))
    except BaseException as error:
        await _give_up(desk, lease, progress, error)
        raise
    return Made(lease, minted, progress.renewable)


async def watch(desk: LeaseDesk, attempt: Attempt, work: Awaitable[T]) -> T:
    """Let a request be served, and put on record what else comes of it."""
    try:
        return await work
    except CredentialRefused as refusal:
        await refuse(desk, attempt, refusal)
        raise
    except BaseException as error:
        record = attempt.record("outcome", "error", _text(error))
        with suppress(AuditUnavailable):
            if isinstance(error, Exception):
                await desk.trail.record(record)
            else:
                desk.trail.append(record)  # cancelled: there is no time to wait
        raise


async def refuse(desk: LeaseDesk, attempt: Attempt, refusal: CredentialRefused) -> None:
    """Put a refusal on record."""
    detail = f"{refusal.code}: {refusal}"
    refusal.operation = attempt.operation
    await desk.trail.record(attempt.record("outcome", "deny", detail, refusal.rule))


@dataclass(slots=True)
class _Progress:
    """How far minting has come.

    `asked` for a credential that nothing could end if the answer is lost; or its handle is
    `held` in the store.
    """

    asked: bool = False
    held: bool = False
    renewable: bool = False


async def _open(desk: LeaseDesk, order: Order) -> Lease:
    lease = order.lease()
    until = lease.created_at + CLAIM
    most = MOST[lease.delivery]
    if not await desk.store.open(lease, desk.owner, until, most):
        raise CredentialRefused(
            "too_many_credentials",
            f"the task token has {most} credentials already; use these, or ask "
            "for another task token",
        )
    return lease


async def _ask(desk: LeaseDesk, order: Order, lease: Lease, progress: _Progress) -> Minted:
    """Have the provider mint, within the time that there is."""
    try:
        provider = desk.providers.of_service(order.service)
        async with asyncio.timeout(desk.patience):
            return await _ask_provider(desk, provider, order.request(), lease, progress)
    except TimeoutError:
        raise CredentialUnavailable(
            f"service {order.service.name} did not answer within {desk.patience:.0f} s",
            retryable=True,
        ) from None
    except ProviderError as error:
        raise CredentialUnavailable(
            str(error), retryable=error.retryable, untouched=error.untouched
        ) from None
    except ConfigurationError as error:
        raise CredentialUnavailable(str(error)) from None


async def _ask_provider(
    desk: LeaseDesk,
    provider: Provider,
    request: CredentialRequest,
    lease: Lease,
    progress: _Progress,
) -> Minted:
    progress.renewable = isinstance(provider, Renewable)
    if isinstance(provider, Reserves):
        reserved = await provider.reserve(request)
        handle = desk.seal(lease.id, reserved.handle)
        if not await desk.store.reserve(lease.id, desk.owner, handle):
            raise revoked()
        progress.held = True
        return await provider.mint_reserved(request, reserved)
    if not isinstance(provider, Mints):
        raise ProviderError(f"provider of service {request.service} mints no credentials")
    progress.asked = True
    return await provider.mint(request)


async def _keep(desk: LeaseDesk, lease: Lease, minted: Minted, progress: _Progress) -> None:
    """Store what it takes to end the credential, now that it exists."""
    handle = desk.seal(lease.id, minted.handle)
    try:
        state = await desk.store.minted(lease.id, handle, minted.expires_at, desk.clock())
    except StorageError:
        if not progress.held:
            await _take_back(desk, lease, minted)
        raise
    progress.held = True
    progress.renewable &= minted.renewable
    if state != "minted":
        raise revoked()
    if minted.expires_at > lease.expires_at + MOST_SKEW:
        excess = minted.expires_at - lease.expires_at
        raise CredentialUnavailable(
            f"service {lease.service} minted a credential that outlives what was asked for "
            f"by {excess:.0f} s; it is being revoked"
        )


async def _take_back(desk: LeaseDesk, lease: Lease, minted: Minted) -> None:
    """End at once what no store remembers, if it can be: its handle is known here alone."""
    with suppress(Exception):  # then it ends by itself, and until then the lease says so
        provider = desk.providers.of_lease(lease)
        if isinstance(provider, Revocable):
            async with asyncio.timeout(desk.patience):
                await provider.revoke(minted.handle)


async def _give_up(
    desk: LeaseDesk, lease: Lease, progress: _Progress, error: BaseException
) -> None:
    """Leave nothing behind of what did not work out."""
    if progress.held:
        await desk.end(lease, _text(error))
        return
    definite = isinstance(error, CredentialUnavailable) and error.untouched
    with suppress(StorageError):  # then the reaper finds it once our claim is over
        if progress.asked and not definite:
            problem = f"nobody knows whether it was minted: {_text(error)}"
            await desk.store.retry(lease, desk.owner, lease.expires_at, problem, ending=False)
        else:
            problem = f"never minted: {_text(error)}"
            await desk.store.close(lease, desk.owner, "revoked", desk.clock(), problem)


def revoked() -> CredentialRefused:
    """Return the refusal of what was revoked while something was being minted for it."""
    return CredentialRefused("invalid_token", "the task token has been revoked")


def _text(error: BaseException) -> str:
    # The texts of our own errors hold no secret; of others we know nothing but their type.
    text = f": {error}" if isinstance(error, BrokerError) else ""
    return type(error).__name__ + text
