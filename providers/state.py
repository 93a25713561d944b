"""What the broker remembers for a provider: part of the contract, beside `providers.base`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from providers.base import Secret


class Held(Protocol):
    """A provider's own state, while no other process can change it."""

    @property
    def value(self) -> Secret | None:
        """What was kept last, or None."""
        ...

    async def keep(self, value: Secret) -> None:
        """Keep another value; it is durable when this returns. Raise `ProviderError` if not."""
        ...


class SharedState(Protocol):
    """What providers must remember across processes and restarts, sealed."""

    def exclusive(self, key: str) -> AbstractAsyncContextManager[Held]:
        """Hold one state; whoever else wants it waits. Raise `ProviderError` if that is too long.

        `key` names the state and holds no secret.
        """
        ...
