"""Secrets from environment variables."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError, SecretUnavailable
from broker.secrets.base import SecretValue
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


class EnvBackend:
    """Read `env:<NAME>`: what the variable held when it was first read.

    A variable is taken out of the environment as it is read, so that programs started later do
    not inherit it. Make one backend for a process: a second would find nothing.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self.scheme = "env"
        self._environment: Final = environment
        self._taken: Final[dict[str, Secret]] = {}

    def check(self, rest: str) -> None:
        """Raise `ConfigurationError` unless `rest` is a variable's name."""
        if _NAME.fullmatch(rest) is None:
            raise ConfigurationError(
                "expected env:<NAME>, the name of an environment variable: letters, digits and "
                "'_', not beginning with a digit"
            )

    async def read(self, rest: str) -> SecretValue:
        """Return the value; raise `SecretUnavailable` if the variable is unset or empty."""
        self.check(rest)
        if rest not in self._taken:
            value = os.fsencode(self._environment.get(rest, ""))
            if not value:
                raise SecretUnavailable(
                    f"the environment variable {rest} is not set or empty; set it where the "
                    "broker is started, and start it again"
                )
            del self._environment[rest]
            self._taken[rest] = Secret(value)
        return SecretValue(self._taken[rest], version=0)

    async def close(self) -> None:
        """Forget the values."""
        self._taken.clear()
