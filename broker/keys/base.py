"""What keys do, whoever holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class SigningKey(Protocol):
    """Sign for the broker with a key that never leaves its holder."""

    kid: str
    algorithm: str

    def sign(self, data: bytes) -> bytes:
        """Return the JWS signature of `data` (for ES256: r || s, 64 bytes; RFC 7518, 3.4)."""
        ...

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public JWK with `kid`, `alg` and `use` (RFC 7517)."""
        ...


class Sealer(Protocol):
    """Encrypt what is kept on disk; `purpose` separates keys, `context` is authenticated."""

    def seal(self, purpose: str, context: bytes, plaintext: bytes) -> bytes:
        """Return `plaintext` sealed for this purpose and context."""
        ...

    def unseal(self, purpose: str, context: bytes, sealed: bytes) -> bytes:
        """Return the plaintext; raise `ConfigurationError` if key, context or bytes are wrong."""
        ...
