"""Agents on laptops and first steps: each vouches for itself with a key that it enrolled.

The agent signs a client assertion (`private_key_jwt`, RFC 7523, 2.2) with its own ES256 key;
the broker keeps the public half.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import ConfigurationError, InvalidToken
from broker.identity import claims, jwk, jws
from broker.identity.base import LOCAL_ISSUER
from broker.jose import p256_jwk
from broker.model import Identity
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from broker.identity.base import Audiences
    from broker.identity.jws import UnverifiedJws
    from broker.model import EnrolledKey

MAX_LIFETIME: Final = 300.0
"""The most seconds from `iat` to `exp` of an assertion."""

_LEEWAY: Final = 30.0
_ASSERTION_LIFETIME: Final = 60
_ALGORITHM: Final = "ES256"


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A new key pair: `pem` is for the agent alone, `kid` and `public_jwk` for the broker."""

    pem: Secret
    kid: str
    public_jwk: Mapping[str, str]


def new_agent_key() -> AgentKey:
    """Return a new ES256 key pair, the private half as PKCS #8 PEM."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_jwk = p256_jwk(private_key.public_key())
    return AgentKey(Secret(pem), public_jwk["kid"], public_jwk)


def client_assertion(
    private_key_pem: Secret, agent: str, audience: str, clock: Callable[[], float] = time.time
) -> str:
    """Return a client assertion for `agent`, good for one minute and one use.

    `audience` is the broker's issuer or token endpoint. Raise `ConfigurationError` if the PEM
    holds no P-256 private key.
    """
    try:
        key = serialization.load_pem_private_key(private_key_pem.reveal(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigurationError(
            f"the key of agent {agent} is not a P-256 private key in PEM; enrol the agent again"
        )
    now = int(clock())
    return jwt.encode(
        {
            "iss": agent,
            "sub": agent,
            "aud": audience,
            "iat": now,
            "exp": now + _ASSERTION_LIFETIME,
            "jti": secrets.token_urlsafe(16),
        },
        key,
        algorithm=_ALGORITHM,
        headers={"kid": p256_jwk(key.public_key())["kid"]},
    )


class LocalSource:
    """Verify client assertions of enrolled agents.

    `keys` returns the enrolled keys of an agent, and none for a name that nobody enrolled.
    `clock` is wall time in seconds since the epoch.
    """

    issuer: str = LOCAL_ISSUER

    def __init__(
        self,
        name: str,
        keys: Callable[[str], Awaitable[tuple[EnrolledKey, ...]]],
        audiences: Audiences,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._keys = keys
        self._audiences = frozenset({audiences.issuer, audiences.token_endpoint})
        self._clock = clock

    async def verify(self, token: UnverifiedJws) -> Identity:
        """Return the agent as an identity; raises as `IdentitySource.verify` does.

        `iss` and `sub` are the agent's name, `aud` is the broker, `jti` is required, and `exp`
        is at most five minutes after `iat`.
        """
        agent = token.claims.get("iss")
        if not isinstance(agent, str):
            raise InvalidToken("malformed_claim", "the 'iss' claim is not the name of an agent")
        if token.claims.get("sub") != agent:
            raise InvalidToken("wrong_subject", "the 'sub' claim is not the agent of 'iss'")
        key = _choose(await self._keys(agent), token.kid)
        signed = jws.verify(token, key)
        checked = claims.check(signed, self._expected_of(agent), self._clock())
        return Identity(
            source=self.name,
            issuer=self.issuer,
            subject=agent,
            claims={"sub": agent},
            # All agents share this issuer, so one could spend another's identifiers.
            token_id=f"{agent}/{checked.token_id}",
            expires_at=checked.expires_at,
            replay="single_use",
        )

    def _expected_of(self, agent: str) -> claims.Expectations:
        return claims.Expectations(
            issuer=agent,
            audiences=self._audiences,
            max_token_age=MAX_LIFETIME,
            max_lifetime=MAX_LIFETIME,
            leeway=_LEEWAY,
            token_id_required=True,
        )


def _choose(enrolled: tuple[EnrolledKey, ...], kid: str | None) -> jwk.VerificationKey:
    candidates = [key for key in enrolled if kid is None or key.kid == kid]
    if len(candidates) != 1:
        raise InvalidToken(
            "unknown_key",
            "the assertion names no key that the agent enrolled"
            if kid is not None
            else f"the assertion names no key, and the agent enrolled {len(enrolled)}",
        )
    try:
        return jwk.load(dict(candidates[0].public_jwk))
    except jwk.UnusableKey as error:
        raise InvalidToken("unusable_key", f"the enrolled key cannot be used: {error}") from None
