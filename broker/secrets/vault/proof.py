"""The files that hold what the broker logs in to Vault with.

They are read again for each login, so that whoever delivers a proof may renew it.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError, SecretUnavailable
from broker.files import read_private
from broker.secrets.file import without_line_ending

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 64 << 10
_ONE_WORD: Final = re.compile(rb"[!-~]+")


def private_proof(path: Path) -> str:
    """Return the secret that a private file (mode 0600) holds; raise `SecretUnavailable`."""
    try:
        content = read_private(path, max_bytes=_MAX_BYTES)
    except ConfigurationError as error:
        raise SecretUnavailable(f"cannot log in to Vault: {error}") from None
    return _word(path, content)


def projected_proof(path: Path) -> str:
    """Return a workload's token as its platform puts it; raise `SecretUnavailable`.

    Mode and owner are not looked at, and links are followed: Kubernetes projects a pod's token
    as a link to a file that belongs to root and that the pod's users may read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SecretUnavailable(f"cannot log in to Vault: {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SecretUnavailable(f"cannot log in to Vault: {path}: is no regular file")
        return _word(path, file.read(_MAX_BYTES))


def _word(path: Path, content: bytes) -> str:
    proof = without_line_ending(content)
    # It goes into a header or a JSON body: anything else is a mistake, and shows itself here.
    if _ONE_WORD.fullmatch(proof) is None:
        raise SecretUnavailable(f"cannot log in to Vault: {path}: does not hold one word of text")
    return proof.decode()
