"""The decision that the peers written in Python make: an ES256 task token and a path rule.

The signature is verified once for each token, and the verdict remembered until the token expires:
as little work as an honest implementation can do. It runs in the peers' own environment as well,
so it imports nothing of this project.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from pathlib import Path

_HALF: Final = 32
"""Bytes of each of the two numbers of an ES256 signature (RFC 7518, 3.4)."""


class Decision:
    """Judge requests by the keys in a JWKS file and the rules in another."""

    def __init__(self, jwks: Path, rules: Path, prefix: str) -> None:
        self._keys = {key["kid"]: _public_key(key) for key in json.loads(jwks.read_text())["keys"]}
        patterns: dict[str, list[str]] = {}
        for line in rules.read_text().splitlines():
            method, _, path = line.partition(" ")
            segments = re.escape(path).replace(r"\*", "[^/]+")
            patterns.setdefault(method, []).append(re.escape(prefix) + segments)
        self._rules = {one: re.compile("|".join(patterns[one])) for one in patterns}
        self._known: dict[str, float] = {}

    def allows(self, method: str, path: str, authorization: str | None) -> bool:
        """Tell whether the token is good and a rule allows the request."""
        scheme, _, token = (authorization or "").partition(" ")
        expires = self._known.get(token) or self._verify(token)
        if scheme != "Bearer" or expires <= time.time():
            return False
        rule = self._rules.get(method)
        return rule is not None and rule.fullmatch(path.partition("?")[0]) is not None

    def _verify(self, token: str) -> float:
        """Return when the token expires, in seconds since the epoch; 0 if it is not good."""
        try:
            head, claims, signature = token.split(".")
            header, stated = _decoded(head), _decoded(claims)
            raw = _bytes(signature)
            key = self._keys[header["kid"]]
            numbers = (int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big"))
            signed = f"{head}.{claims}".encode()
            if header["alg"] != "ES256":
                return 0.0
            key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(SHA256()))
        except (ValueError, KeyError, InvalidSignature):
            return 0.0
        self._known[token] = expires = float(stated["exp"])
        return expires


def _public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(_bytes(jwk[name]), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _decoded(segment: str) -> dict[str, Any]:
    found = json.loads(_bytes(segment))
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - to be caught with the others
    return found
