"""What minting and ending credentials have in common."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from broker.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.audit.base import Trail
    from broker.keys.base import Sealer
    from broker.model import Lease, LeaseStanding, Service
    from broker.storage.base import LeaseStore
    from providers.base import Provider

PATIENCE: Final = 15.0
"""How long, in seconds, a provider may take to mint, renew or revoke."""

CLAIM: Final = 25.0
"""How long, in seconds, a lease is its owner's; after a crash, how long until another takes it.
Longer than `PATIENCE`, by what storage and trail may take."""

_PURPOSE: Final = "leases"
_RENEW_AT: Final = 2 / 3
_WORTHWHILE: Final = 1.0

_log: Final = logging.getLogger(__name__)


class Providers(Protocol):
    """Build providers, with all that they need. Raises `ConfigurationError` where it cannot."""

    def of_service(self, service: Service) -> Provider:
        """Return the provider of a service of the policy in force."""
        ...

    def of_lease(self, lease: Lease) -> Provider:
        """Return the provider of a lease's service as it was when the lease was opened."""
        ...


@dataclass
class LeaseStats:
    """What there is to count: leases by standing as last looked at, and ends that were tried."""

    states: Mapping[LeaseStanding, int] = field(default_factory=dict)
    revoked: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class LeaseDesk:
    """What whoever works on leases needs.

    `owner` names this worker to all that share the store; `clock` is wall time in seconds
    since the epoch. Set `wake` to have the reaper look for work at once.
    """

    store: LeaseStore
    providers: Providers
    sealer: Sealer
    trail: Trail
    clock: Callable[[], float]
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    patience: float = PATIENCE
    stats: LeaseStats = field(default_factory=LeaseStats)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self, lease: Lease, problem: str | None) -> None:
        """Have a lease end as soon as may be; if that cannot be noted, it ends when it is due."""
        try:
            await self.store.end(lease.id, self.owner, self.clock(), problem)
        except StorageError as error:
            _log.error("lease %s is to be revoked, and is once it is due: %s", lease.id, error)
        self.wake.set()

    def seal(self, lease: str, handle: Mapping[str, str]) -> bytes:
        """Return a handle as it is stored: readable with the master key, for this lease alone."""
        return self.sealer.seal(_PURPOSE, lease.encode(), json.dumps(dict(handle)).encode())

    def unseal(self, lease: str, handle: bytes) -> dict[str, str]:
        """Return a stored handle; raise `ConfigurationError` if it cannot be read."""
        opened: dict[str, str] = json.loads(self.sealer.unseal(_PURPOSE, lease.encode(), handle))
        return opened


def next_look(now: float, expires_at: float, grant_ends_at: float, *, renewable: bool) -> float:
    """Return when a delivered credential must be looked at next: to renew it, or to end it."""
    end = min(expires_at, grant_ends_at)
    if renewable and expires_at < grant_ends_at - _WORTHWHILE:
        return now + (end - now) * _RENEW_AT
    return end
