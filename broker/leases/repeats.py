"""Remember what agents have been given, for clients that ask for it before each call.

AWS's SDKs do so in the last minutes of a session: a session of 15 minutes is asked for again
each time it is used.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broker.leases.minting import Issued

MOST: Final = 1024
"""Credentials that are remembered; of more, the one that was wanted longest ago is forgotten."""

WORN: Final = 300.0
"""Seconds before a credential's end in which another is minted, if that would live longer."""

Key = tuple[str, str, str]
"""A grant's jti, a scope and a policy version: all that a credential depends on."""


class Repeats:
    """Credentials that agents have, in memory."""

    def __init__(self) -> None:
        self._kept: Final[OrderedDict[Key, Issued]] = OrderedDict()

    def find(self, key: Key, now: float) -> Issued | None:
        """Return a credential that is good for a while yet, or for as long as any could be."""
        issued = self._kept.get(key)
        if issued is None:
            return None
        grant_ends_at = issued.lease.grant_ends_at
        good_until = issued.expires_at - (WORN if issued.expires_at < grant_ends_at else 0.0)
        if now >= min(good_until, grant_ends_at):
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return issued

    def keep(self, key: Key, issued: Issued, now: float) -> None:
        """Remember a credential that its agent has, and forget those that have ended."""
        for known in [known for known, one in self._kept.items() if now >= one.expires_at]:
            del self._kept[known]
        self._kept[key] = issued
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def forget(self, grant: str) -> None:
        """Forget the credentials of a grant and of all that descend from it."""
        ended = [
            key
            for key, issued in self._kept.items()
            if grant in {issued.lease.grant, *issued.lease.ancestors}
        ]
        for key in ended:
            del self._kept[key]
