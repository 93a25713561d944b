"""What every identity source offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType, Protocol

if TYPE_CHECKING:
    from broker.identity.jws import UnverifiedJws
    from broker.model import Identity

UnverifiedToken = NewType("UnverifiedToken", str)
"""A compact JWT as it came from a caller.

`jws.parse` makes it an `UnverifiedJws`, and only an identity source makes that an `Identity`.
"""

LOCAL_ISSUER: Final = "local"
"""The issuer of agents that vouch for themselves with an enrolled key; no URL is equal to it."""


@dataclass(frozen=True, slots=True)
class Audiences:
    """The audiences that name this broker: its issuer and its token endpoint."""

    issuer: str
    token_endpoint: str


class IdentitySource(Protocol):
    """Verify one issuer's proofs."""

    name: str
    issuer: str

    async def verify(self, token: UnverifiedJws) -> Identity:
        """Return the workload identity that the token proves.

        Raise `InvalidToken` for a proof that is refused and `IssuerUnavailable` when the
        issuer's keys cannot be had. Does not judge trust: policy does.
        """
        ...
