"""Workload identities that an OpenID Connect issuer vouches for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.addresses import why_not_issuer_url
from broker.errors import ConfigurationError, InvalidToken
from broker.identity import claims, jws
from broker.identity.jwks import Fetch, IssuerKeys
from broker.model import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.identity.base import Audiences
    from broker.identity.jws import UnverifiedJws
    from broker.model import Replay

_MAX_LIFETIME: Final = 366 * 86_400.0
"""Longer than a year from `iat` to `exp` is a mistake or an attack, not a workload's token."""


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """How one issuer's tokens are verified; times are in seconds.

    `audiences` are what a token's `aud` must name, by default the broker's own issuer.
    `max_token_age` counts from `iat`. Without `jwks_uri` the issuer's discovery document says
    where its keys are. `stale_keys_for` is how old keys may get while the issuer is down.
    `ca_file` and `allow_private` are for whoever makes the HTTP client.
    """

    issuer: str
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    replay: Replay = "single_use"
    max_token_age: float = 86_400.0
    jwks_uri: str | None = None
    allow_extra_audiences: bool = False
    leeway: float = 30.0
    stale_keys_for: float = 3_600.0
    ca_file: str | None = None
    allow_private: bool = False


class OidcSource:
    """Verify the JWTs of one issuer (RFC 7519, RFC 8725, RFC 9068, OpenID Connect Core 1.0).

    `fetch` gets the issuer's documents, `clock` is wall time in seconds since the epoch,
    `monotonic` measures how old keys are. Raise `ConfigurationError` for settings that cannot
    be safe.
    """

    def __init__(  # noqa: PLR0913 - each is a collaborator, injected by name
        self,
        name: str,
        settings: OidcSettings,
        audiences: Audiences,
        fetch: Fetch,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        _require_safe(name, settings, audiences)
        self.name = name
        self.issuer = settings.issuer
        self._replay: Replay = settings.replay
        self._algorithms = frozenset(settings.algorithms)
        self._clock = clock
        self._keys = IssuerKeys(
            settings.issuer,
            jwks_uri=settings.jwks_uri,
            stale_for=settings.stale_keys_for,
            fetch=fetch,
            monotonic=monotonic,
        )
        self._expectations = claims.Expectations(
            issuer=settings.issuer,
            audiences=frozenset(settings.audiences or (audiences.issuer,)),
            allow_extra_audiences=settings.allow_extra_audiences,
            max_token_age=settings.max_token_age,
            max_lifetime=_MAX_LIFETIME,
            leeway=settings.leeway,
        )

    async def verify(self, token: UnverifiedJws) -> Identity:
        """Return the identity that the token proves; raises as `IdentitySource.verify` does."""
        if token.algorithm not in self._algorithms:
            raise InvalidToken(
                "algorithm_not_allowed",
                f"the source {self.name} allows {', '.join(sorted(self._algorithms))}, "
                f"not {token.algorithm}",
            )
        key = await self._keys.key(token.kid, token.algorithm)
        signed = jws.verify(token, key)
        checked = claims.check(signed, self._expectations, self._clock())
        return Identity(
            source=self.name,
            issuer=self.issuer,
            subject=checked.subject,
            claims=checked.claims,
            token_id=checked.token_id,
            expires_at=checked.expires_at,
            replay=self._replay,
        )

    async def probe(self) -> None:
        """Fetch the issuer's keys if that is due; raise `IssuerUnavailable` saying why it fails."""
        await self._keys.probe()


def _require_safe(name: str, settings: OidcSettings, audiences: Audiences) -> None:
    where = f"identity source {name}"
    if settings.issuer == audiences.issuer:
        raise ConfigurationError(
            f"{where}: {settings.issuer} is the broker's own issuer, whose task tokens are no "
            "workload identities; name another issuer"
        )
    for field, url in (("issuer", settings.issuer), ("jwks_uri", settings.jwks_uri)):
        refusal = None if url is None else why_not_issuer_url(url)
        if refusal is not None:
            raise ConfigurationError(f"{where}: the {field} {url!r} is refused: {refusal}")
    unsupported = sorted(set(settings.algorithms) - jws.ALGORITHMS)
    if unsupported or not settings.algorithms:
        raise ConfigurationError(
            f"{where}: algorithms has {', '.join(unsupported) or 'nothing'}; "
            f"choose from {', '.join(sorted(jws.ALGORITHMS))}"
        )
    if not 0 <= settings.leeway <= claims.MAX_LEEWAY:
        raise ConfigurationError(
            f"{where}: leeway is {settings.leeway:g} s; choose 0 to {claims.MAX_LEEWAY:g} s"
        )
    if not (settings.max_token_age > 0 and settings.stale_keys_for >= 0):
        raise ConfigurationError(
            f"{where}: max_token_age must be above 0 and stale_keys_for not below 0"
        )
