"""Signing keys in a sealed file, each with the times at which its part begins and ends."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from broker.errors import ConfigurationError
from broker.files import create_private, read_private
from broker.jose import P256_BYTES, p256_jwk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from broker.keys.base import Sealer, SigningKey


CLOCK_MARGIN: Final = 2 * 3600
"""How far, in seconds, a wall clock may be set back without a new broker having no key."""


class FileSigningKey:
    """Sign with a P-256 key held in memory (a `SigningKey`)."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.algorithm = "ES256"
        self._private_key: Final = private_key
        self._jwk: Final = p256_jwk(private_key.public_key())
        self.kid: str = self._jwk["kid"]

    def sign(self, data: bytes) -> bytes:
        """Return r || s, 64 bytes (RFC 7518, 3.4)."""
        r, s = decode_dss_signature(self._private_key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(P256_BYTES, "big") + s.to_bytes(P256_BYTES, "big")

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK with `kid`, `alg` and `use`."""
        return dict(self._jwk)

    def __repr__(self) -> str:
        return f"FileSigningKey({self.kid})"


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key and its times, in seconds since the epoch.

    It is published before it signs, so that verifiers know it when they meet its signatures,
    and stays published until it is retired: when the last token it signed has expired.
    """

    key: SigningKey
    published_at: int
    signs_from: int
    retired_at: int | None = None

    def published(self, now: float) -> bool:
        """Say whether verifiers should know this key."""
        return self.published_at <= now and (self.retired_at is None or now < self.retired_at)


class KeySet:
    """The keys of one purpose: one signs, and those still needed for verifying are published."""

    def __init__(self, keys: tuple[KeyState, ...], clock: Callable[[], float] = time.time) -> None:
        self.keys: Final = keys
        self._clock: Final = clock

    @classmethod
    def create(
        cls, path: Path, sealer: Sealer, purpose: str, clock: Callable[[], float] = time.time
    ) -> KeySet:
        """Make a key set of one key and keep it, sealed, in a new file.

        Raises:
            ConfigurationError: something is there already.
        """
        private_key = ec.generate_private_key(ec.SECP256R1())
        # Nobody knows an older one, so it may sign from before now: the clock may be set back.
        now = int(clock()) - CLOCK_MARGIN
        document = {
            "keys": [{"private_key": _text(private_key), "published_at": now, "signs_from": now}]
        }
        plaintext = json.dumps(document).encode()
        create_private(path, sealer.seal(_purpose(purpose), b"", plaintext))
        return cls((KeyState(FileSigningKey(private_key), now, now),), clock)

    @classmethod
    def open(
        cls, path: Path, sealer: Sealer, purpose: str, clock: Callable[[], float] = time.time
    ) -> KeySet:
        """Return the key set that `path` keeps.

        Raises:
            ConfigurationError: the file is absent, not private, damaged, for another purpose,
                or sealed with another master key; says which.
        """
        sealed = read_private(path)
        try:
            plaintext = sealer.unseal(_purpose(purpose), b"", sealed)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        try:
            keys = tuple(_state(item) for item in json.loads(plaintext)["keys"])
        except (KeyError, TypeError, ValueError, binascii.Error):
            # The content is authentic, so a broker of another version wrote it. Its text may
            # hold key material: nothing of it goes into the message.
            raise ConfigurationError(
                f"{path}: written by another version of the broker, and not readable by this one"
            ) from None
        return cls(keys, clock)

    @property
    def signer(self) -> SigningKey:
        """The key that signs now: of those whose time has come, the newest.

        Raises:
            ConfigurationError: there is none.
        """
        now = self._clock()
        ready = [key for key in self.keys if key.signs_from <= now and key.published(now)]
        if not ready:
            raise ConfigurationError("no key may sign at this time; is the clock right?")
        return max(ready, key=lambda state: state.signs_from).key

    def public_jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """Return the JWK Set of the keys that verifiers should know now (RFC 7517, 5)."""
        now = self._clock()
        return {"keys": [state.key.public_jwk() for state in self.keys if state.published(now)]}


def _purpose(purpose: str) -> str:
    return f"signing-keys/{purpose}"


def _text(private_key: ec.EllipticCurvePrivateKey) -> str:
    der = private_key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),  # the file is sealed as a whole
    )
    return base64.b64encode(der).decode()


def _state(item: Mapping[str, Any]) -> KeyState:
    der = base64.b64decode(item["private_key"], validate=True)
    private_key = serialization.load_der_private_key(der, password=None)
    if not isinstance(private_key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an EC key")
    retired_at = item.get("retired_at")
    return KeyState(
        FileSigningKey(private_key),
        int(item["published_at"]),
        int(item["signs_from"]),
        None if retired_at is None else int(retired_at),
    )
