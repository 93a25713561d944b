"""How the embedded store encrypts a value: under a key of its own, sealed with the master key.

Both are bound to the secret's name and version, so that no row can stand in for another.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import ConfigurationError

_PURPOSE: Final = "embedded-secrets"
_CHECK: Final = b"check"
_KEY_BITS: Final = 256
_NONCE_BYTES: Final = 12


class Seals(Protocol):
    """The master key, as far as this package needs it (`broker.keys.base.Sealer`)."""

    def seal(self, purpose: str, context: bytes, plaintext: bytes) -> bytes:
        """Return `plaintext` sealed for this purpose and context."""
        ...

    def unseal(self, purpose: str, context: bytes, sealed: bytes) -> bytes:
        """Return the plaintext; raise `ConfigurationError` if it cannot be."""
        ...


class Sealed(NamedTuple):
    """A data key sealed with the master key, and nonce and AES-256-GCM text under it."""

    key: bytes
    value: bytes


class Envelopes:
    """Seal and open values with the master key behind `sealer`."""

    def __init__(self, sealer: Seals) -> None:
        self._sealer: Final = sealer

    def seal(self, name: str, version: int, value: bytes) -> Sealed:
        """Return `value` under a new data key."""
        context = _context(name, version)
        key = AESGCM.generate_key(_KEY_BITS)
        nonce = token_bytes(_NONCE_BYTES)
        ciphertext = AESGCM(key).encrypt(nonce, value, context)
        return Sealed(self._sealer.seal(_PURPOSE, context, key), nonce + ciphertext)

    def open(self, name: str, version: int, sealed: Sealed) -> bytes:
        """Return the value.

        Raises:
            ConfigurationError: it is damaged, altered, or another secret's or version's.
        """
        context = _context(name, version)
        nonce, ciphertext = sealed.value[:_NONCE_BYTES], sealed.value[_NONCE_BYTES:]
        try:
            key = self._sealer.unseal(_PURPOSE, context, sealed.key)
            return AESGCM(key).decrypt(nonce, ciphertext, context)
        except (ConfigurationError, InvalidTag, ValueError):
            raise ConfigurationError(
                f"version {version} of secret {name!r} is damaged or was altered"
            ) from None

    def new_check(self) -> bytes:
        """Return a text by which `check` knows the master key again."""
        return self._sealer.seal(_PURPOSE, _CHECK, b"")

    def check(self, text: bytes) -> None:
        """Raise `ConfigurationError` unless `text` was made with this master key."""
        self._sealer.unseal(_PURPOSE, _CHECK, text)


def _context(name: str, version: int) -> bytes:
    # A name holds no '@', so that two different pairs never give the same bytes.
    return f"{name}@{version}".encode()
