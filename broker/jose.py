"""The little of JOSE that several parts need: base64url, P-256 keys as JWKs, thumbprints."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

P256_BYTES: Final = 32
"""The length of a coordinate, and of each half of a signature."""

_THUMBPRINT_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}


def base64url_encode(data: bytes) -> str:
    """Return `data` in base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_decode(text: str) -> bytes:
    """Return the bytes that `text` encodes.

    Raise `ValueError` for any spelling but that of `base64url_encode`.
    """
    try:
        decoded = base64.urlsafe_b64decode(text + "==")
    except ValueError:  # binascii.Error is one
        raise ValueError("it is not base64url") from None
    # Encoding it again finds what the decoder passes over: foreign characters, padding, and
    # unused bits that are set.
    if base64url_encode(decoded) != text:
        raise ValueError("it is not canonical base64url")
    return decoded


def p256_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return a P-256 public key as a JWK with `kid` (its thumbprint), `alg` and `use`."""
    numbers = key.public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": base64url_encode(numbers.x.to_bytes(P256_BYTES)),
        "y": base64url_encode(numbers.y.to_bytes(P256_BYTES)),
    }
    return {**jwk, "kid": thumbprint(jwk), "alg": "ES256", "use": "sig"}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of an EC, OKP or RSA JWK (RFC 7638)."""
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64url_encode(hashlib.sha256(canonical.encode()).digest())
