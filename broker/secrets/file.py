"""Secrets from files, as container platforms and secret agents put them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker.errors import ConfigurationError, SecretUnavailable
from broker.files import read_private
from broker.secrets.base import MAX_SECRET_BYTES, SecretValue
from providers.base import Secret


class FileBackend:
    """Read `file:<absolute path>`: a regular file that is this user's alone (mode 0600, 0400).

    One line ending at the end of the file is not part of the secret.
    """

    def __init__(self) -> None:
        self.scheme = "file"

    def check(self, rest: str) -> None:
        """Raise `ConfigurationError` unless `rest` is an absolute path in its plain form."""
        path = Path(rest)
        if not path.is_absolute() or str(path) != rest or ".." in path.parts or "\0" in rest:
            raise ConfigurationError(
                "expected file:<path>, the path being absolute and without '.', '..' or '//'"
            )

    async def read(self, rest: str) -> SecretValue:
        """Return what the file holds now; raise `SecretUnavailable` if it may not be used."""
        self.check(rest)
        try:
            content = await asyncio.to_thread(read_private, Path(rest), max_bytes=MAX_SECRET_BYTES)
        except ConfigurationError as error:
            raise SecretUnavailable(str(error)) from None
        value = without_line_ending(content)
        if not value:
            raise SecretUnavailable(f"{rest}: is empty; write the secret to it")
        return SecretValue(Secret(value), version=0)

    async def close(self) -> None:
        """Nothing is held open."""


def without_line_ending(content: bytes) -> bytes:
    """Return `content` without the one line ending that editors and `echo` put at its end."""
    if content.endswith(b"\r\n"):
        return content[:-2]
    return content.removesuffix(b"\n")
