"""Which grants have been revoked, told from the revocations that there are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.model import LONGEST_LIFETIME, Revocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.model import Grant, RevocationKind

_FOREVER: Final = 1 << 62
_NEVER: Final = (-1, 0)
_FEW: Final = 1_000


class Revoked:
    """A set of revocations, to be asked about grants.

    What a grant's own record says is all it knows: of a grant that descends from a holder of a
    revoked scope, and does not hold that scope itself, the store makes a revocation of its own.
    """

    def __init__(self, revocations: Iterable[Revocation] = ()) -> None:
        self._grants: Final[dict[str, int]] = {}
        self._moments: Final[dict[tuple[str, str], tuple[int, int]]] = {}
        self._forget_at = _FEW
        for revocation in revocations:
            self.add(revocation)

    def __len__(self) -> int:
        return len(self._grants) + len(self._moments)

    def add(self, revocation: Revocation) -> None:
        """Take one more revocation; one that is known already changes nothing."""
        if revocation.kind == "grant":
            until = max(revocation.until, self._grants.get(revocation.value, 0))
            self._grants[revocation.value] = until
            return
        key = (revocation.kind, revocation.value)
        moment, until = self._moments.get(key, _NEVER)
        self._moments[key] = max(revocation.revoked_at, moment), max(revocation.until, until)

    def covers(self, grant: Grant) -> bool:
        """Say whether a grant has been revoked."""
        grants = self._grants
        if grant.jti in grants or any(jti in grants for jti in grant.ancestors):
            return True
        if not self._moments:
            return False
        groups = [("all", "")]
        groups += [("agent", name) for name in grant.parties]
        groups += [("scope", name) for name in grant.scopes]
        return any(grant.issued_at <= self._moments.get(one, _NEVER)[0] for one in groups)

    def forget(self, before: float) -> None:
        """Drop what ends no grant that lives at `before` or later; looks only now and then."""
        if len(self) < self._forget_at:
            return
        for jti in [jti for jti, until in self._grants.items() if until < before]:
            del self._grants[jti]
        for key in [key for key, (_, until) in self._moments.items() if until < before]:
            del self._moments[key]
        self._forget_at = max(_FEW, 2 * len(self))


def revocation(
    kind: RevocationKind, value: str, *, now: float, by: str, reason: str | None = None
) -> Revocation:
    """Return a revocation as of `now`, in seconds since the epoch, for the store to number."""
    moment = int(now)
    return Revocation(kind, value, moment, moment + LONGEST_LIFETIME, by, reason)


def timeless(order: Revocation) -> Revoked:
    """Return what would be revoked if all grants had been issued before it."""
    return Revoked((replace(order, revoked_at=_FOREVER),))
