"""What every storage backend offers. All methods raise `StorageError` when they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from broker.model import EnrolledKey, Grant


@dataclass(frozen=True, slots=True)
class ReplayClaim:
    """The one use of a single-use proof, remembered until `until` (seconds since the epoch)."""

    issuer: str
    token_id: str
    until: float


class Storage(Protocol):
    """Durable records, shared by every worker of one broker."""

    async def save_grant(self, grant: Grant, claim: ReplayClaim | None = None) -> bool:
        """Store a grant and, in the same transaction, spend `claim`.

        Return False, storing nothing, if the claim has been spent already.
        """
        ...

    async def grant(self, jti: str) -> Grant | None:
        """Return a grant, or None."""
        ...

    async def enrol(self, key: EnrolledKey) -> None:
        """Add a public key to a local agent; adding it again changes nothing.

        Raise `StorageError` if the key is another agent's.
        """
        ...

    async def enrolled_keys(self, agent: str | None = None) -> tuple[EnrolledKey, ...]:
        """Return an agent's enrolled keys, or everybody's, the oldest first."""
        ...

    async def unenrol(self, agent: str) -> int:
        """Remove an agent's keys; return how many there were."""
        ...

    async def purge(self, now: float) -> int:
        """Forget replay claims and grants that can no longer matter; return how many.

        A claim outlives its proof, and a grant its expiry, by a margin that a wall clock's
        step back does not exceed.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued and release the store."""
        ...
