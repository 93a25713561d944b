"""Task tokens: the only place where the broker's own JWTs are encoded and decoded.

A task token (RFC 9068, `typ: at+jwt`, ES256) carries everything that the gateway must know of
its grant, so that the gateway needs no storage to judge a request; the grant that storage
keeps is for the audit trail, for revocation and for what is minted under it. Beside the
claims of RFC 9068:

    agent       the agent whose rights these are (also `sub`)
    task        what the agent said it is doing
    reason      why it said it needs this
    policy      the version of the policy that granted it
    identity    the workload identity behind it: `iss`, `sub`, and the `claims` that templates use
    ancestors   the jtis of the grants that this one was narrowed from, the root first
    act         who acts for the agent, where it is another (RFC 8693, 4.1)
"""

from __future__ import annotations

import base64
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt
import orjson

from broker.errors import InvalidToken
from broker.model import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_TOKEN_BYTES: Final = 16 * 1024

OWN_SUBJECT: Final = "agent-token-broker"
"""Who the broker is in its own tokens; no task token is for the same audience."""

_VOUCHED_FOR: Final = 300
_CLOCK_SKEW: Final = 30
"""How far, in seconds, the clock of the worker that issued a token may be ahead of ours."""

_COMPACT_ES256: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"]


class TokenSigner(Protocol):
    """A key that signs task tokens."""

    kid: str
    algorithm: str

    def sign(self, data: bytes) -> bytes:
        """Return the JWS signature of `data`."""
        ...


class TokenKeys(Protocol):
    """The keys of task tokens: the one that signs now, and those that verifiers should know."""

    @property
    def signer(self) -> TokenSigner:
        """The key that signs now."""
        ...

    def public_jwks(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Return the JWK Set of the keys whose signatures are still good."""
        ...


class TaskTokens:
    """Encode grants as task tokens and decode them again.

    `issuer` is the broker's, byte for byte; `audience` is the gateway's URL.
    """

    def __init__(self, keys: TokenKeys, issuer: str, audience: str) -> None:
        self._keys: Final = keys
        self._issuer: Final = issuer
        self._audience: Final = audience

    def issue(self, grant: Grant) -> str:
        """Return the task token of a grant."""
        signer = self._keys.signer
        if signer.algorithm != "ES256":
            raise ValueError(f"task tokens are signed with ES256, not {signer.algorithm}")
        signed = _header(signer.kid) + b"." + _encode(orjson.dumps(self._claims(grant)))
        return (signed + b"." + _encode(signer.sign(signed))).decode()

    def vouch(self, audience: str, now: float) -> str:
        """Return a token by which the broker proves to `audience` that it is this broker.

        It is no task token: its type, subject and audience are others, and no agent ever sees
        it. It is good for a few minutes, once or often.
        """
        if audience == self._audience:
            raise ValueError("the broker proves nothing to its own gateway")
        claims = {
            "iss": self._issuer,
            "sub": OWN_SUBJECT,
            "aud": audience,
            "iat": int(now),
            "nbf": int(now) - _CLOCK_SKEW,
            "exp": int(now) + _VOUCHED_FOR,
            "jti": secrets.token_urlsafe(16),
        }
        signer = self._keys.signer
        header = {"alg": signer.algorithm, "kid": signer.kid, "typ": "JWT"}
        signed = _encode(orjson.dumps(header)) + b"." + _encode(orjson.dumps(claims))
        return (signed + b"." + _encode(signer.sign(signed))).decode()

    def verify(self, token: bytes, now: float) -> Grant:
        """Return the grant that a task token carries; `now` is in seconds since the epoch.

        Raises `InvalidToken` unless one of our keys signed exactly these bytes, for us, and the
        token is within its life. Does not ask whether the grant has been revoked.
        """
        if len(token) > MAX_TOKEN_BYTES or not _COMPACT_ES256.fullmatch(token):
            raise InvalidToken("malformed", "not a task token")
        # The header is compared, and not read: an algorithm, key or extension of the caller's
        # choice cannot be told from any other text that is not our header.
        key = self._key(token[: token.index(b".")])
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["ES256"],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "verify_signature": True,
                    "verify_iss": True,
                    "verify_aud": True,
                    "strict_aud": True,
                    "verify_sub": True,
                    "verify_jti": True,
                    "verify_exp": False,  # below, by the clock that the caller passed
                    "verify_iat": False,
                    "verify_nbf": False,  # task tokens have none
                    "require": _REQUIRED,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidSignatureError:
            raise InvalidToken("bad_signature", "the task token's signature is wrong") from None
        except jwt.PyJWTError:
            raise InvalidToken("malformed", "not one of this broker's task tokens") from None
        grant = _grant(claims)
        if now >= grant.expires_at:
            raise InvalidToken("expired", "the task token has expired; ask for a new one")
        if grant.issued_at > now + _CLOCK_SKEW:
            raise InvalidToken("not_yet_valid", "the task token is from the future")
        return grant

    def _claims(self, grant: Grant) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": grant.agent,
            "aud": self._audience,
            "exp": grant.expires_at,
            "iat": grant.issued_at,
            "jti": grant.jti,
            "client_id": grant.client_id,
            "scope": " ".join(grant.scopes),
            "agent": grant.agent,
            "policy": grant.policy_version,
            "identity": {"iss": grant.issuer, "sub": grant.subject, "claims": grant.claims},
        }
        optional = {
            "task": grant.task,
            "reason": grant.reason,
            "ancestors": grant.ancestors,
            "act": grant.actor,
        }
        claims.update((name, value) for name, value in optional.items() if value)
        return claims

    def _key(self, header: bytes) -> jwt.PyJWK:
        for jwk in self._keys.public_jwks()["keys"]:
            if header == _header(jwk["kid"]):
                return _parsed(tuple(jwk.items()))
        raise InvalidToken("unknown_key", "no current key of this broker signed the task token")


def _grant(claims: Mapping[str, Any]) -> Grant:
    """Return the grant of claims that we have signed, perhaps in another version."""
    try:
        return Grant(
            jti=claims["jti"],
            agent=claims["agent"],
            issuer=claims["identity"]["iss"],
            subject=claims["identity"]["sub"],
            scopes=tuple(claims["scope"].split(" ")),
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            policy_version=claims["policy"],
            client_id=claims["client_id"],
            task=claims.get("task"),
            reason=claims.get("reason"),
            ancestors=tuple(claims.get("ancestors", ())),
            actor=claims.get("act"),
            claims=claims["identity"]["claims"],
        )
    except (KeyError, TypeError):
        raise InvalidToken("malformed", "a task token of another version of the broker") from None


@lru_cache(maxsize=16)
def _header(kid: str) -> bytes:
    return _encode(orjson.dumps({"alg": "ES256", "kid": kid, "typ": "at+jwt"}))


@lru_cache(maxsize=16)
def _parsed(jwk: tuple[tuple[str, str], ...]) -> jwt.PyJWK:
    return jwt.PyJWK(dict(jwk), algorithm="ES256")


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
