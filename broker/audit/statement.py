"""What a trail's key signs: that a chain has a given record at a given place.

A statement is a small JSON object; its signature is a JWS with detached content (RFC 7515,
appendix F) over the object's canonical bytes, so that any JOSE library can check it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import orjson

from broker.jose import base64url_decode, base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    CheckSignature = Callable[[Mapping[str, str], bytes, bytes], bool]
    """Tell whether a signature over data was made with the key of a public JWK."""

StatementKind = Literal["checkpoint", "head"]
_TYPE_PREFIX: Final = "audit-"


class Signs(Protocol):
    """A key that signs the trail's statements; see `broker.keys.base.SigningKey`."""

    @property
    def kid(self) -> str:
        """The key's RFC 7638 thumbprint."""
        ...

    @property
    def algorithm(self) -> str:
        """The JWS algorithm, `ES256`."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the JWS signature of `data`."""
        ...


def sign_statement(signer: Signs, kind: StatementKind, statement: Mapping[str, Any]) -> str:
    """Return the detached JWS of a statement; the kind keeps one from passing as another."""
    header = _header(signer.algorithm, signer.kid, kind)
    signature = signer.sign(_signing_input(header, statement))
    return f"{header}..{base64url_encode(signature)}"


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys whose statements about a trail are believed.

    `jwks` are public JWKs (RFC 7517) with `kid` and `alg`. They come from the key store or
    from whoever verifies, never from beside the trail: who can edit a trail can put another
    key there.
    """

    jwks: tuple[Mapping[str, str], ...]
    check: CheckSignature

    def problem(
        self, kind: StatementKind, statement: Mapping[str, Any], signature: object
    ) -> str | None:
        """Return why the signature does not hold, or None if it does."""
        if not isinstance(signature, str):
            return "it is not signed"
        header, _, rest = signature.partition("..")
        for jwk in self.jwks:
            # Compared as text: a header that is not ours byte for byte is never interpreted.
            if header == _header(jwk.get("alg", "ES256"), jwk.get("kid", ""), kind):
                raw = _decode(rest)
                if raw is not None and self.check(jwk, _signing_input(header, statement), raw):
                    return None
                return "its signature is wrong"
        return f"it is signed by none of the trusted keys ({_names(self.jwks)})"


def _header(algorithm: str, kid: str, kind: StatementKind) -> str:
    fields = {"alg": algorithm, "kid": kid, "typ": _TYPE_PREFIX + kind}
    return base64url_encode(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))


def _signing_input(header: str, statement: Mapping[str, Any]) -> bytes:
    payload = orjson.dumps(dict(statement), option=orjson.OPT_SORT_KEYS)
    return f"{header}.{base64url_encode(payload)}".encode()


def _decode(text: str) -> bytes | None:
    try:
        return base64url_decode(text)
    except ValueError:
        return None


def _names(jwks: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(jwk.get("kid", "a key without kid") for jwk in jwks) or "there are none"
