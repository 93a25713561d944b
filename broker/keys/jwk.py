"""ES256 public keys as JWKs (RFC 7517), their thumbprints and their signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

COORDINATE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return a P-256 public key as a JWK with `kid` (its thumbprint), `alg` and `use`."""
    numbers = key.public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": _encode(numbers.x.to_bytes(COORDINATE_BYTES, "big")),
        "y": _encode(numbers.y.to_bytes(COORDINATE_BYTES, "big")),
    }
    return {**jwk, "kid": thumbprint(jwk), "alg": "ES256", "use": "sig"}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint of an EC JWK (RFC 7638)."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return _encode(hashlib.sha256(canonical.encode()).digest())


def verify_es256(jwk: Mapping[str, str], data: bytes, signature: bytes) -> bool:
    """Say whether `signature` (r || s, 64 bytes) is this key's signature of `data`.

    Raises:
        ConfigurationError: the JWK is no P-256 key. `kid`, `alg` and `use` are not looked at.
    """
    key = _public_key(jwk)
    if len(signature) != SIGNATURE_BYTES:
        return False
    r, s = signature[:COORDINATE_BYTES], signature[COORDINATE_BYTES:]
    der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    try:
        key.verify(der, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _public_key(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise ConfigurationError("not a P-256 public key: expected kty EC and crv P-256")
    x, y = (_coordinate(jwk, name) for name in ("x", "y"))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise ConfigurationError("not a P-256 public key: x and y are not on the curve") from None


def _coordinate(jwk: Mapping[str, str], name: str) -> int:
    text = jwk.get(name)
    try:
        raw = base64.b64decode(f"{text}=".encode(), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    # Encoding again refuses text that decodes alike but is not what the key's owner wrote.
    if len(raw) != COORDINATE_BYTES or _encode(raw) != text:
        raise ConfigurationError(
            f"not a P-256 public key: {name} must be {COORDINATE_BYTES} bytes in base64url"
        )
    return int.from_bytes(raw, "big")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
