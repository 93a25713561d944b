"""Verify ES256 signatures with public keys that are JWKs (RFC 7517)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from broker.errors import ConfigurationError
from broker.jose import P256_BYTES, base64url_decode

if TYPE_CHECKING:
    from collections.abc import Mapping


def verify_es256(jwk: Mapping[str, str], data: bytes, signature: bytes) -> bool:
    """Say whether `signature` (r || s, 64 bytes) is this key's signature of `data`.

    Raises:
        ConfigurationError: the JWK is no P-256 key. `kid`, `alg` and `use` are not looked at.
    """
    key = _public_key(jwk)
    if len(signature) != 2 * P256_BYTES:
        return False
    r, s = signature[:P256_BYTES], signature[P256_BYTES:]
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
        raw = base64url_decode(text) if isinstance(text, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != P256_BYTES:
        raise ConfigurationError(
            f"not a P-256 public key: {name} must be {P256_BYTES} bytes in base64url"
        )
    return int.from_bytes(raw, "big")
