"""What every identity source offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

if TYPE_CHECKING:
    from broker.model import Identity

UnverifiedToken = NewType("UnverifiedToken", str)
"""A compact JWT as it came from a caller; only an identity source turns it into an `Identity`."""


@dataclass(frozen=True, slots=True)
class Audiences:
    """The audiences that name this broker: its issuer and its token endpoint."""

    issuer: str
    token_endpoint: str


class IdentitySource(Protocol):
    """Verify one issuer's proofs."""

    name: str
    issuer: str

    async def verify(self, token: UnverifiedToken) -> Identity:
        """Return the workload identity.

        Raise `InvalidToken` for a proof that is refused and `IssuerUnavailable` when the
        issuer's keys cannot be had. Does not judge trust: policy does.
        """
        ...
