"""What every secret backend offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from providers.base import Secret

MAX_SECRET_BYTES: Final = 64 << 10
"""The longest secret that any backend takes or gives: what is longer is no credential."""


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A secret's value and its version as the backend counts them (1, 2, ...; 0: unversioned)."""

    secret: Secret
    version: int


class SecretBackend(Protocol):
    """Read secrets of one scheme; `rest` is the reference after `scheme:`."""

    scheme: str

    def check(self, rest: str) -> None:
        """Raise `ConfigurationError` if `rest` is not of the scheme's form. Does no I/O."""
        ...

    async def read(self, rest: str) -> SecretValue:
        """Return the current value; raise `SecretUnavailable`, saying what to do.

        The error is `retryable` where the value may be had later without anybody's doing: a
        value read shortly before may then stand in for it.
        """
        ...

    async def close(self) -> None:
        """Release connections and wipe what can be wiped."""
        ...
