"""What a provider is given in tests, and what it is asked for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker import http
from providers.base import CredentialRequest, Dependencies, ProviderError, Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1_800_000_000.0


@dataclass
class Values:
    """Secrets by reference (`providers.base.SecretReader`)."""

    values: dict[str, bytes] = field(default_factory=dict)

    async def read(self, reference: str) -> Secret:
        if reference not in self.values:
            raise ProviderError(f"{reference} is not set")
        return Secret(self.values[reference])


@dataclass
class KeptState:
    """What is remembered, in memory (`providers.state.SharedState`)."""

    values: dict[str, Secret] = field(default_factory=dict)
    lost: bool = False

    @asynccontextmanager
    async def exclusive(self, key: str) -> AsyncIterator[Any]:
        state = self

        class Held:
            value = state.values.get(key)

            async def keep(self, value: Secret) -> None:
                if state.lost:
                    raise ProviderError("it cannot be kept", retryable=True)
                state.values[key] = value

        yield Held()


def dependencies(
    values: dict[str, bytes], state: KeptState | None = None, now: float = NOW
) -> Dependencies:
    """Return what a provider is given."""
    return Dependencies(Values(values), http.client, lambda: now, None, state or KeptState())


def request(constraints: Any, lifetime: int = 300) -> CredentialRequest:
    """Return what a provider is asked for."""
    return CredentialRequest("crm", "coder", "grant-1", "crm.read", None, lifetime, constraints)
