"""What every storage backend offers. All methods raise `StorageError` when they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from broker.model import (
        AdminToken,
        EnrolledKey,
        Grant,
        Lease,
        LeaseStanding,
        LeaseState,
        PolicyChange,
        PolicyEntry,
        Revocation,
        Session,
    )

Saved = Literal["saved", "spent", "revoked"]
"""What became of a grant that was to be stored: its proof may have been spent before, or it, or
what it descends from, may have been revoked meanwhile."""


@dataclass(frozen=True, slots=True)
class ReplayClaim:
    """The one use of a single-use proof, remembered until `until` (seconds since the epoch)."""

    issuer: str
    token_id: str
    until: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A revocation as stored, the grants that were good until then, and how many leases end."""

    revocation: Revocation
    grants: tuple[Grant, ...]
    leases: int


@dataclass(frozen=True, slots=True)
class Use:
    """How often a grant was used since this was last noted, and when last."""

    requests: int
    used_at: float


class LeaseStore(Protocol):
    """Every minted credential's record, and who looks after it.

    A lease that is due is worked on by whoever has claimed it: one owner at a time, until the
    claim is released or its time is over. An owner is named by a text that no other owner has;
    all times are in seconds since the epoch. A lease's end is asked for without a claim, and
    whoever works on it finds its state changed: revocation wins.
    """

    async def open(self, lease: Lease, owner: str, until: float, most: int) -> bool:
        """Store an intent that `owner` works on until then.

        Return False, storing nothing, if the grant has `most` leases of the same delivery that
        are not over.
        """
        ...

    async def reserve(self, lease: str, owner: str, handle: bytes) -> bool:
        """Keep the handle of what is about to be minted.

        Return False if it must not be minted any more: it is to end, or no longer `owner`'s.
        """
        ...

    async def minted(
        self, lease: str, handle: bytes | None, expires_at: float, now: float
    ) -> LeaseState:
        """Keep the handle of what exists now, whatever has become of the lease.

        Return `minted`; or `revoking`, where its end was asked for before, or it was given up.
        """
        ...

    async def delivered(self, lease: str, due_at: float) -> bool:
        """Note that the agent has what was minted, and release the claim; due again at `due_at`.

        Return False, changing nothing, if it is to end.
        """
        ...

    async def use(self, lease: str, owner: str, expires_at: float, until: float) -> bool:
        """Note that `owner`'s gateway uses what was minted, or renewed, and keep the claim.

        It is due when the claim is over. Return False, changing nothing, if it is to end or no
        longer `owner`'s.
        """
        ...

    async def hold(self, leases: Collection[str], owner: str, until: float) -> frozenset[str]:
        """Keep the claims on what `owner`'s gateway uses, until then or its end if that is sooner.

        Return those that it may go on using; of the others nothing is changed.
        """
        ...

    async def end(self, lease: str, owner: str, now: float, problem: str | None) -> bool:
        """Have a lease end as soon as may be, and release `owner`'s claim; False if it is over."""
        ...

    async def end_grant(self, jti: str, now: float) -> int:
        """Have all leases of a grant, and of all that descend from it, end; return how many."""
        ...

    async def claim(self, owner: str, now: float, until: float, most: int) -> tuple[Lease, ...]:
        """Claim up to `most` leases that are due and nobody's, the longest due first.

        Those that could not be ended before come last: an upstream that hangs must not keep
        others waiting.
        """
        ...

    async def renewed(
        self, lease: str, owner: str, expires_at: float, due_at: float, problem: str | None
    ) -> bool:
        """Note when a delivered credential ends now, and release the claim.

        Return False if it is to end, or no longer `owner`'s; the end that was known stays.
        """
        ...

    async def retry(
        self, lease: Lease, owner: str, due_at: float, problem: str, *, ending: bool
    ) -> bool:
        """Note that a lease could not be ended yet, and release the claim until `due_at`.

        With `ending` it is `revoking` now. Return False if it is no longer `owner`'s, or its
        handle is not `lease`'s: then it is still due as it was, and nobody's.
        """
        ...

    async def close(
        self, lease: Lease, owner: str, state: LeaseState, now: float, problem: str | None = None
    ) -> bool:
        """Note that a lease is over (`revoked` or `expired`); False as from `retry`."""
        ...

    async def lease(self, lease: str) -> Lease | None:
        """Return a lease, or None."""
        ...

    async def leases(self, *, over: bool = False) -> tuple[Lease, ...]:
        """Return the leases that are not over, or also those that are, the oldest first."""
        ...

    async def counts(self) -> Mapping[LeaseStanding, int]:
        """Return how many leases that are not over stand where; absent means none."""
        ...


class RevocationStore(Protocol):
    """Every revocation that may still end a grant, in the order in which they were made."""

    async def add(self, order: Revocation) -> Ended:
        """Number and store a revocation and, in the same transaction, end the leases it ends.

        Once this returns, no grant that it ends is stored any more. Raise `StorageError`,
        storing nothing, if revocations have been forgotten and this is not one of `all`.
        """
        ...

    async def since(self, number: int) -> tuple[Revocation, ...]:
        """Return the revocations after a number, in order; from 0 on, all of them.

        Raise `StorageError` if the store knows fewer than there have been.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """The entries that the admin API keeps, as of version `number` (0: there was none yet)."""

    number: int
    entries: tuple[PolicyEntry, ...] = ()


class PolicyHistory(Protocol):
    """The policy that is set through the admin API, every version of it."""

    async def number(self) -> int:
        """Return the number of the last version; 0 if there is none."""
        ...

    async def kept(self, number: int | None = None) -> KeptPolicy:
        """Return the entries as of a version (default: the last), by section and name.

        Raise `StorageError` if there is no such version, or versions do not fit together.
        """
        ...

    async def commit(self, change: PolicyChange, after: int) -> PolicyChange | None:
        """Number, chain and store a change; None, storing nothing, if `after` is not the last."""
        ...

    async def versions(self, before: int | None, most: int) -> tuple[PolicyChange, ...]:
        """Return up to `most` versions below `before`, the newest first.

        Raise `StorageError` if one has been tampered with.
        """
        ...


class AdminTokens(Protocol):
    """What is kept of administrators' tokens."""

    async def add(self, token: AdminToken) -> bool:
        """Store a token; False, storing nothing, if one of its name is good at its creation."""
        ...

    async def find(self, token_id: str) -> AdminToken | None:
        """Return a token by its id, whatever its state, or None."""
        ...

    async def all(self) -> tuple[AdminToken, ...]:
        """Return every token that there ever was, the oldest first."""
        ...

    async def revoke(self, name_or_id: str, now: int) -> tuple[AdminToken, ...]:
        """Revoke the tokens that are good at `now` and have this name or id; return them."""
        ...


class TotalStore(Protocol):
    """How often what may be done only so often in all has been done, each under a key."""

    async def count(self, totals: Sequence[tuple[str, int]], until: float) -> int | None:
        """Add one to the count of each key, or to none if a count has reached its most.

        Return None, or else the index of the one that is full. The counts matter until then,
        in seconds since the epoch.
        """
        ...

    async def uncount(self, keys: Sequence[str]) -> None:
        """Take one from the count of each key again."""
        ...

    async def used(self, keys: Sequence[str]) -> Mapping[str, int]:
        """Return the counts of those keys that have one."""


class StateStore(Protocol):
    """What providers must remember, each state changed by one process at a time."""

    async def claim(
        self, key: str, owner: str, until: float, now: float
    ) -> tuple[bool, bytes | None]:
        """Claim a state until then; return whether it is `owner`'s, and what it holds."""
        ...

    async def keep(self, key: str, owner: str, value: bytes) -> bool:
        """Change a state; False if it is not `owner`'s any more."""
        ...

    async def release(self, key: str, owner: str) -> None:
        """Let others claim a state, if it is `owner`'s."""
        ...


class Storage(Protocol):
    """Durable records, shared by every worker of one broker."""

    @property
    def policies(self) -> PolicyHistory:
        """The policy that is set through the admin API."""
        ...

    @property
    def admin_tokens(self) -> AdminTokens:
        """What is kept of administrators' tokens."""
        ...

    @property
    def revocations(self) -> RevocationStore:
        """What has been revoked."""
        ...

    @property
    def leases(self) -> LeaseStore:
        """The records of minted credentials."""
        ...

    @property
    def totals(self) -> TotalStore:
        """How much of their totals grants have used."""
        ...

    @property
    def states(self) -> StateStore:
        """What providers must remember."""
        ...

    async def save_grant(self, grant: Grant, claim: ReplayClaim | None = None) -> Saved:
        """Store a grant and, in the same transaction, spend `claim`.

        Store nothing if the claim has been spent already, or if a revocation ends the grant or
        any that it descends from.
        """
        ...

    async def is_spent(self, claim: ReplayClaim) -> bool:
        """Say whether a claim has been spent, as far as is known now."""
        ...

    async def spend(self, claim: ReplayClaim) -> bool:
        """Spend a claim by itself; return False if it has been spent already."""
        ...

    async def grant(self, jti: str) -> Grant | None:
        """Return a grant, or None."""
        ...

    async def sessions(self, now: float) -> tuple[Session, ...]:
        """Return the grants that are good at `now`, the oldest first, with their use."""
        ...

    async def note_use(self, uses: Mapping[str, Use]) -> None:
        """Add to the use of grants, by their jtis."""
        ...

    async def check(self) -> str | None:
        """Read something; return why nothing can be written, if the last attempt failed.

        Such an attempt is then made anew. Raise `StorageError` if nothing can be read.
        """
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
        """Forget what matters no more of all that is stored; return how much that was.

        A revocation outlives the grants that it ends, a claim its proof, a grant and its totals
        its expiry and a lease its end, by a margin that a wall clock's step back does not exceed.
        """
        ...

    async def close(self) -> None:
        """Finish what is queued and release the store."""
        ...
