"""The contract with a provider whose credentials nobody can revoke, but somebody can deny."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Denial(Protocol):
    """Have credentials that cannot be revoked refused where they are used, until they expire.

    `grants` are the ids of grants, each with the time, in seconds since the epoch, at which the
    last credential of it expires.
    """

    @property
    def place(self) -> str:
        """Where the denial stands, in the vendor's words."""
        ...

    def document(self, grants: Mapping[str, float], now: float) -> str:
        """Return what must stand there, as JSON."""
        ...

    def put(self, grants: Mapping[str, float], now: float) -> str:
        """Put it there, with what stands there already and is still needed; blocks.

        Acts as whoever runs this, never as the broker. Return in words what stands there then;
        raise `ProviderError` if it could not be put there.
        """
        ...
