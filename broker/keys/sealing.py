"""The master key: what is kept on disk is sealed with it, and it comes from one of three places.

A sealed text is `version (1) | key id (8) | nonce (12) | AES-256-GCM ciphertext and tag`. Each
purpose has its own key, derived from the master key by HKDF-SHA256 (RFC 5869). The header and
the caller's context are authenticated, so that a sealed text opens only for the purpose and
place it was made for. The key id is derived too: it tells a wrong key from damaged bytes.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.errors import ConfigurationError
from broker.files import create_private, private_directory, read_private
from broker.keys.process import take_variable
from broker.keys.system_keyring import KeyringEntry

if TYPE_CHECKING:
    from pathlib import Path

MasterKeySource = Literal["file", "keyring", "environment"]

KEY_BYTES: Final = 32
VARIABLE: Final = "BROKER_MASTER_KEY"

_taken: Final[dict[str, MasterKey]] = {}
"""What was taken out of this process's environment: it is gone from there, and needed again."""

_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES
_NEW_KEY: Final = "openssl rand -base64 32"


class MasterKey:
    """Seal and unseal with keys derived from 32 secret bytes (a `Sealer`).

    `key_id` identifies the key and reveals nothing of it.
    """

    __slots__ = ("_ciphers", "_key", "key_id")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"the master key has {len(key)} bytes, and must have {KEY_BYTES}; "
                f"make one with: {_NEW_KEY}"
            )
        self._key: Final = key
        self._ciphers: Final[dict[str, AESGCM]] = {}
        self.key_id: Final = self._derive("key-id", _KEY_ID_BYTES).hex()

    def seal(self, purpose: str, context: bytes, plaintext: bytes) -> bytes:
        """Return `plaintext` sealed for this purpose and context.

        The nonce is random: seal at most 2^32 texts for one purpose (NIST SP 800-38D, 8.3).
        """
        header = _VERSION + bytes.fromhex(self.key_id)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + self._cipher(purpose).encrypt(nonce, plaintext, header + context)

    def unseal(self, purpose: str, context: bytes, sealed: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            ConfigurationError: another master key sealed it, or it is damaged, altered, or
                sealed for another purpose or context. Says which of the two.
        """
        if len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise ConfigurationError(f"sealed text is cut short: {len(sealed)} bytes are left")
        if sealed[:1] != _VERSION:
            raise ConfigurationError(
                f"sealed text has format {sealed[0]}, and this broker reads format {_VERSION[0]}"
            )
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        key_id = header[len(_VERSION) :].hex()
        if key_id != self.key_id:
            raise ConfigurationError(
                f"wrong master key: this was sealed with key {key_id}, and key {self.key_id} "
                "is loaded; restore the master key that belongs to this home directory"
            )
        nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            return self._cipher(purpose).decrypt(nonce, ciphertext, header + context)
        except InvalidTag:
            raise ConfigurationError(
                "sealed text is damaged, altered, or from another place; restore it from a backup"
            ) from None

    def _cipher(self, purpose: str) -> AESGCM:
        cipher = self._ciphers.get(purpose)
        if cipher is None:
            cipher = AESGCM(self._derive(f"seal/{purpose}", KEY_BYTES))
            self._ciphers[purpose] = cipher
        return cipher

    def _derive(self, info: str, length: int) -> bytes:
        # No salt: the master key is uniformly random (RFC 5869, 3.1).
        label = f"agent-token-broker/1/{info}".encode()
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=label).derive(self._key)

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MasterKey does not pickle")


def load_master_key(source: MasterKeySource, home: Path) -> MasterKey:
    """Return the master key of the broker at `home`.

    `file` is `keys/master.key`; `keyring` the entry of `home` in the system keyring;
    `environment` the variable BROKER_MASTER_KEY, which is then removed, so that no child
    inherits it, and remembered for the next call. Each holds 32 bytes in base64.

    Raises:
        ConfigurationError: there is no key, or it is malformed or not private; says which
            source was asked and what to do.
    """
    if source == "file":
        path = master_key_file(home)
        if not path.is_symlink() and not path.exists():
            raise ConfigurationError(f"{path}: there is no master key; run: broker init")
        return MasterKey(_decode(read_private(path), str(path)))
    if source == "keyring":
        text = KeyringEntry(home).read()
        if text is None:
            raise ConfigurationError(
                f"the system keyring has no master key for {home.absolute()}; run: broker init"
            )
        return MasterKey(_decode(text.encode(), "the system keyring's entry"))
    return _from_environment()


def create_master_key(source: MasterKeySource, home: Path) -> MasterKey:
    """Make the master key of a new broker at `home`, and return it.

    With source `environment` the key is the one that is set: whoever starts the broker has it.

    Raises:
        ConfigurationError: a key is there already, or it cannot be kept there.
    """
    if source == "environment":
        return _from_environment()
    key = secrets.token_bytes(KEY_BYTES)
    text = base64.b64encode(key).decode()
    if source == "file":
        path = master_key_file(home)
        private_directory(path.parent)
        create_private(path, text.encode() + b"\n")
        return MasterKey(key)
    entry = KeyringEntry(home)
    if entry.read() is not None:
        raise ConfigurationError(
            f"the system keyring has a master key for {home.absolute()} already; "
            "it is not overwritten"
        )
    entry.write(text)
    return MasterKey(key)


def master_key_file(home: Path) -> Path:
    """Return where the master key of the broker at `home` is kept, with source `file`."""
    return home / "keys" / "master.key"


def _from_environment() -> MasterKey:
    text = take_variable(VARIABLE)
    if text is not None:
        _taken[VARIABLE] = MasterKey(_decode(text.encode(errors="replace"), f"${VARIABLE}"))
    if VARIABLE not in _taken:
        raise ConfigurationError(
            f"${VARIABLE} is not set; set it to the master key, or make one with: {_NEW_KEY}"
        )
    return _taken[VARIABLE]


def _decode(text: bytes, place: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{place}: is not a master key, which is {KEY_BYTES} bytes in base64; restore it, "
            f"or, for a new broker, make one with: {_NEW_KEY}"
        )
    return key
