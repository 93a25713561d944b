"""Check the claims of a workload identity: a table of claim and checker, and what is left out."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.errors import InvalidToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.identity.jws import SignedClaims

MAX_LEEWAY: Final = 60.0
"""The most seconds that two clocks may differ by; more would keep dead tokens alive."""

_MAX_TEXT: Final = 1024
_MAX_TOKEN_ID: Final = 256
_END_OF_TIME: Final = 32_503_680_000  # the year 3000: beyond it are milliseconds and mistakes
_CONTROL_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

KNOWN_UNCHECKED: Final = frozenset(
    {
        "acr",
        "act",
        "amr",
        "at_hash",
        "auth_time",
        "azp",
        "c_hash",
        "client_id",
        "email",
        "email_verified",
        "entitlements",
        "groups",
        "may_act",
        "name",
        "nonce",
        "roles",
        "s_hash",
        "scope",
        "sid",
        "typ",
        "ver",
    }
)
"""Registered claims that are left to policy, which may demand any of them by value."""


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a source demands of a token's claims; times are in seconds.

    `max_token_age` counts from `iat`, whatever `exp` says; `max_lifetime` bounds `exp - iat`.
    `allow_extra_audiences` admits a token that is meant for others as well.
    """

    issuer: str
    audiences: frozenset[str]
    max_token_age: float
    max_lifetime: float
    leeway: float
    allow_extra_audiences: bool = False
    token_id_required: bool = False


@dataclass(frozen=True, slots=True)
class CheckedClaims:
    """Claims that have passed every check; the proof is good until `expires_at` plus leeway."""

    subject: str
    token_id: str
    expires_at: float
    claims: Mapping[str, Any]


def check(claims: SignedClaims, expected: Expectations, now: float) -> CheckedClaims:
    """Return the claims if they are what the source expects at `now` (seconds since the epoch).

    Raise `InvalidToken` naming the claim that is missing, malformed or refused (RFC 7519, 4.1;
    RFC 9068, 2.2). Does not judge the claims in `KNOWN_UNCHECKED`, nor an issuer's own.
    """
    required = (*_REQUIRED, "jti") if expected.token_id_required else _REQUIRED
    for name in required:
        if name not in claims:
            raise InvalidToken("missing_claim", f"the token has no {name!r} claim")
    for name, checker in CHECKERS.items():
        if name in claims:
            checker(claims[name], expected, now)
    issued_at, expires_at = float(claims["iat"]), float(claims["exp"])
    _require_lifetime(issued_at, expires_at, expected, now)
    return CheckedClaims(
        subject=claims["sub"],
        token_id=claims.get("jti") or _digest(claims),
        expires_at=min(expires_at, issued_at + expected.max_token_age),
        claims=claims,
    )


def _issuer(value: Any, expected: Expectations, _now: float) -> None:
    if value != expected.issuer:
        raise InvalidToken("wrong_issuer", "the 'iss' claim is not the source's issuer")


def _subject(value: Any, _expected: Expectations, _now: float) -> None:
    _require_identifier("sub", value, _MAX_TEXT)


def _token_id(value: Any, _expected: Expectations, _now: float) -> None:
    _require_identifier("jti", value, _MAX_TOKEN_ID)


def _audience(value: Any, expected: Expectations, _now: float) -> None:
    audiences = value if isinstance(value, list) else [value]
    if not audiences:
        raise InvalidToken("malformed_claim", "the 'aud' claim is an empty array")
    for audience in audiences:
        _require_identifier("aud", audience, _MAX_TEXT)
    ours = expected.audiences.intersection(audiences)
    if not ours:
        raise InvalidToken(
            "wrong_audience",
            f"the 'aud' claim holds none of {', '.join(sorted(expected.audiences))}",
        )
    if len(ours) < len(audiences) and not expected.allow_extra_audiences:
        raise InvalidToken(
            "extra_audience",
            "the 'aud' claim names others beside the broker, who could replay the token; "
            "the source does not say allow_extra_audiences",
        )


def _expiry(value: Any, expected: Expectations, now: float) -> None:
    if _time("exp", value) + expected.leeway <= now:
        raise InvalidToken("expired", "the 'exp' claim is in the past")


def _issued_at(value: Any, expected: Expectations, now: float) -> None:
    if _time("iat", value) - expected.leeway > now:
        raise InvalidToken("not_yet_valid", "the 'iat' claim is in the future")


def _not_before(value: Any, expected: Expectations, now: float) -> None:
    if _time("nbf", value) - expected.leeway > now:
        raise InvalidToken("not_yet_valid", "the 'nbf' claim is in the future")


def _confirmation(_value: Any, _expected: Expectations, _now: float) -> None:
    raise InvalidToken(
        "bound_token",
        "the 'cnf' claim binds the token to a key, of which the caller shows no proof (RFC 7800)",
    )


def _events(_value: Any, _expected: Expectations, _now: float) -> None:
    raise InvalidToken(
        "wrong_type", "the 'events' claim makes the token an event, not an identity (RFC 8417)"
    )


CHECKERS: Final[Mapping[str, Callable[[Any, Expectations, float], None]]] = {
    "iss": _issuer,
    "aud": _audience,
    "sub": _subject,
    "exp": _expiry,
    "iat": _issued_at,
    "nbf": _not_before,
    "jti": _token_id,
    "cnf": _confirmation,
    "events": _events,
}
"""Each claim that is checked where it is present."""

_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat")


def _require_lifetime(
    issued_at: float, expires_at: float, expected: Expectations, now: float
) -> None:
    if expires_at <= issued_at:
        raise InvalidToken("malformed_claim", "the 'exp' claim is not after 'iat'")
    if expires_at - issued_at > expected.max_lifetime:
        raise InvalidToken(
            "lifetime_too_long",
            f"the token lives for {expires_at - issued_at:.0f} s, longer than the "
            f"{expected.max_lifetime:.0f} s that a token of this source may",
        )
    if issued_at + expected.max_token_age + expected.leeway <= now:
        raise InvalidToken(
            "too_old",
            f"the token was issued {now - issued_at:.0f} s ago, longer than the source's "
            f"max_token_age of {expected.max_token_age:.0f} s",
        )


def _time(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidToken("malformed_claim", f"the {name!r} claim is not a number")
    if not 0 < value < _END_OF_TIME:
        raise InvalidToken(
            "malformed_claim", f"the {name!r} claim is no time in seconds since 1970"
        )
    return float(value)


def _require_identifier(name: str, value: Any, longest: int) -> None:
    if not isinstance(value, str):
        raise InvalidToken("malformed_claim", f"the {name!r} claim is not a string")
    if not 0 < len(value) <= longest:
        raise InvalidToken(
            "malformed_claim", f"the {name!r} claim is not 1 to {longest} characters long"
        )
    if value.isascii() and value.isprintable():
        return
    if any(unicodedata.category(character) in _CONTROL_CATEGORIES for character in value):
        raise InvalidToken(
            "malformed_claim", f"the {name!r} claim holds control or formatting characters"
        )


def _digest(claims: SignedClaims) -> str:
    # Over the claims, not the token: header and signature can be altered and stay valid.
    canonical = json.dumps(claims, sort_keys=True, separators=(",", ":"))
    return f"claims-sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
