"""Find the identity source that may judge a token, by the token's exact issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import ConfigurationError, InvalidToken
from broker.identity import jws
from broker.identity.base import LOCAL_ISSUER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.identity.base import IdentitySource, UnverifiedToken
    from broker.model import Identity


class IdentityResolver:
    """Hand each token to the one source that is configured for its issuer.

    Raise `ConfigurationError` if two sources have the same issuer: which of them judged a token
    would be chance.
    """

    def __init__(self, sources: Iterable[IdentitySource]) -> None:
        self._by_issuer: dict[str, IdentitySource] = {}
        for source in sources:
            first = self._by_issuer.setdefault(source.issuer, source)
            if first is not source:
                raise ConfigurationError(
                    f"identity sources {first.name} and {source.name} both have the issuer "
                    f"{source.issuer}; keep one of them"
                )

    async def verify(self, token: UnverifiedToken, *, client_id: str | None = None) -> Identity:
        """Return the identity that the token proves.

        `client_id` is what the request says; an agent that vouches for itself must be named so
        (RFC 7523, 3). Raise `InvalidToken` for a proof that is refused, without any I/O if its
        issuer is not configured, and `IssuerUnavailable` when the issuer's keys cannot be had.
        """
        unverified = jws.parse(token)
        issuer = unverified.claims.get("iss")
        source = self._source(issuer)
        if source.issuer == LOCAL_ISSUER and client_id not in {None, issuer}:
            raise InvalidToken("wrong_client", "the 'iss' claim is not the request's client_id")
        return await source.verify(unverified)

    def _source(self, issuer: object) -> IdentitySource:
        if not isinstance(issuer, str):
            raise InvalidToken("missing_claim", "the token has no 'iss' claim that is a string")
        source = self._by_issuer.get(issuer)
        if source is None and ":" not in issuer:
            # No URL, so nobody's issuer: an agent's own name, which vouches for itself.
            source = self._by_issuer.get(LOCAL_ISSUER)
        if source is None:
            raise InvalidToken(
                "unknown_issuer", f"no identity source has the issuer {issuer!a:.200}"
            )
        return source
