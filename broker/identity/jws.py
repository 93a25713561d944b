"""Read a compact JWS of a stranger, strictly, and verify its signature (RFC 7515, RFC 8725).

PyJWT's algorithms do the cryptography. Its parser is not used: it lets pass padding, members
named twice, any `typ`, and a second parser is a second opinion of what was signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NewType

import jwt

from broker.errors import InvalidToken
from broker.jose import base64url_decode
from broker.strict_json import NotStrictJson, loads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.identity.base import UnverifiedToken
    from broker.identity.jwk import VerificationKey

SignedClaims = NewType("SignedClaims", dict[str, Any])
"""Claims whose signature has been verified; made by `verify` alone."""

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Every signature algorithm that a source may allow: asymmetric ones only."""

MAX_TOKEN: Final = 16_384
_MAX_HEADER: Final = 4_096
_MAX_KID: Final = 256
_TYPES: Final = frozenset({"jwt", "at+jwt"})
_JWE_DOTS: Final = 4

_REFUSED_HEADERS: Final[Mapping[str, str]] = {
    "crit": "an extension that must be understood",
    "b64": "an unencoded payload",
    "zip": "compression",
    "enc": "encryption",
    "jwk": "a key of its own",
    "jku": "an address of its own keys",
    "x5c": "a certificate of its own",
    "x5u": "an address of its own certificate",
}
"""Header parameters that choose the key, or change how the token is read."""


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed JWS whose signature nobody has looked at yet.

    Its parts make the token, which is good as a credential: `repr` shows none of them.
    """

    algorithm: str
    kid: str | None
    claims: dict[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: UnverifiedToken) -> UnverifiedJws:
    """Return the parts of a compact JWS whose payload is a JSON object.

    Raise `InvalidToken` for all else: over 16 KiB, base64url that is not canonical, JSON with
    two readings, a header that carries a key or asks for what is not supported, a `typ` other
    than `JWT` or `at+jwt`. Does no I/O and does not look at the claims.
    """
    if len(token) > MAX_TOKEN:
        raise InvalidToken("too_large", f"the token is longer than {MAX_TOKEN} characters")
    segments = token.split(".")
    if len(segments) == _JWE_DOTS + 1:
        raise InvalidToken("encrypted", "the token has five parts, so it is encrypted (JWE)")
    try:
        header_segment, payload_segment, signature_segment = segments
    except ValueError:
        raise InvalidToken("malformed", "the token has not three parts, as a JWT has") from None
    if len(header_segment) > _MAX_HEADER:
        raise InvalidToken("too_large", f"the header is longer than {_MAX_HEADER} characters")
    header = _json_object(header_segment, "header")
    _require_header(header)
    return UnverifiedJws(
        algorithm=header["alg"],
        kid=header.get("kid"),
        claims=_json_object(payload_segment, "payload"),
        signing_input=f"{header_segment}.{payload_segment}".encode(),
        signature=_decode(signature_segment, "signature"),
    )


def verify(unverified: UnverifiedJws, key: VerificationKey) -> SignedClaims:
    """Return the claims once `key` has verified the signature; raise `InvalidToken` if not.

    The algorithm must be one that the key is for; the caller has checked that its source
    allows it.
    """
    if unverified.algorithm not in key.algorithms:
        raise InvalidToken(
            "wrong_key_type",
            f"the token's algorithm {unverified.algorithm} is not one that its key is for "
            f"({', '.join(sorted(key.algorithms))})",
        )
    algorithm = jwt.get_algorithm_by_name(unverified.algorithm)
    if not algorithm.verify(unverified.signing_input, key.public_key, unverified.signature):
        raise InvalidToken("bad_signature", "the signature is not the key's")
    return SignedClaims(unverified.claims)


def _require_header(header: dict[str, Any]) -> None:
    for name, meaning in _REFUSED_HEADERS.items():
        if name in header:
            raise InvalidToken("unsupported_header", f"the header's {name!r} asks for {meaning}")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidToken(
            "algorithm_not_allowed",
            f"the header's 'alg' is {algorithm!a:.40}, not a supported signature algorithm",
        )
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID):
        raise InvalidToken(
            "malformed", f"the header's 'kid' is not a string of 1 to {_MAX_KID} characters"
        )
    if "typ" in header and not _is_jwt_type(header["typ"]):
        raise InvalidToken(
            "wrong_type", "the header's 'typ' says that the token is for another purpose"
        )


def _is_jwt_type(value: Any) -> bool:
    # RFC 7515, 4.1.9: a media type, in any case, whose "application/" may be left out.
    return isinstance(value, str) and value.lower().removeprefix("application/") in _TYPES


def _json_object(segment: str, part: str) -> dict[str, Any]:
    try:
        value = loads(_decode(segment, part))
    except NotStrictJson as error:
        raise InvalidToken("malformed", f"the {part} is not JSON of one meaning: {error}") from None
    if not isinstance(value, dict):
        raise InvalidToken("malformed", f"the {part} is not a JSON object")
    return value


def _decode(segment: str, part: str) -> bytes:
    try:
        decoded = base64url_decode(segment)
    except ValueError as error:
        raise InvalidToken("malformed", f"the {part} cannot be decoded: {error}") from None
    if not decoded:
        raise InvalidToken("malformed", f"the {part} is empty")
    return decoded
