"""Signing keys of strangers, and tokens made by hand, so that any of their parts can be wrong."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

if TYPE_CHECKING:
    from collections.abc import Mapping

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


@dataclass(frozen=True)
class StrangersKey:
    """A private key with the name and algorithm under which its owner publishes it."""

    kid: str
    algorithm: str
    private: PrivateKey

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The published key; a change to None leaves the member out."""
        members: dict[str, Any] = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            members |= {"kty": "RSA", "n": uint(numbers.n), "e": uint(numbers.e)}
        elif isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_numbers()
            size = (public.key_size + 7) // 8
            members |= {"kty": "EC", "crv": f"P-{public.key_size}"}
            members |= {"x": b64(point.x.to_bytes(size)), "y": b64(point.y.to_bytes(size))}
        else:
            members |= {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
        members |= changes
        return {name: value for name, value in members.items() if value is not None}

    def private_pem(self) -> bytes:
        """The private key as whoever owns it keeps it."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, data: bytes, algorithm: str | None = None) -> bytes:
        return jwt.get_algorithm_by_name(algorithm or self.algorithm).sign(data, self.private)

    def token(self, claims: Mapping[str, Any] | bytes, **header: Any) -> str:
        """A signed token; a header changed to None is left out, `claims` may be raw bytes."""
        fields = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"} | header
        fields = {name: value for name, value in fields.items() if value is not None}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return self.raw(json.dumps(fields).encode(), payload)

    def raw(self, header: bytes, payload: bytes) -> str:
        """A token over exactly these bytes, signed with the key's own algorithm."""
        signing_input = f"{b64(header)}.{b64(payload)}"
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"


def uint(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


@cache
def rsa_private(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """RSA keys take long to make, so the tests share them by number."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def strangers_key(algorithm: str = "RS256", kid: str = "key-1", number: int = 0) -> StrangersKey:
    """The same key for the same arguments, for the whole run."""
    if algorithm in _CURVES:
        return StrangersKey(kid, algorithm, ec.generate_private_key(_CURVES[algorithm]))
    if algorithm == "EdDSA":
        return StrangersKey(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    return StrangersKey(kid, algorithm, rsa_private(number))
