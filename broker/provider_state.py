"""What providers must remember across processes and restarts: sealed, and changed by one at a time.

A refresh token that is good for one use must not be used by two processes, nor be lost between
its use and the next. Whoever needs it claims it, for as long as a call may take; of a process
that dies the claim ends by itself.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError, StorageError
from providers.base import ProviderError, Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from broker.keys.base import Sealer
    from broker.storage.base import StateStore

CLAIM: Final = 30.0
"""How long, in seconds, a state is its holder's at most. Longer than a provider's call."""

PATIENCE: Final = 12.0
"""How long, in seconds, to wait for another holder."""

_PURPOSE: Final = "provider-state"
_LOOK_EVERY: Final = 0.1


class HeldState:
    """A state, while nobody else can change it (`providers.state.Held`)."""

    def __init__(self, states: SealedState, key: str, owner: str, value: Secret | None) -> None:
        self._states = states
        self._key = key
        self._owner = owner
        self.value = value

    async def keep(self, value: Secret) -> None:
        """Keep another value; it is durable when this returns. Raise `ProviderError` if not."""
        await self._states.keep(self._key, self._owner, value)
        self.value = value


class SealedState:
    """Keep states (`providers.state.SharedState`) in a store, readable with the master key.

    `clock` is wall time in seconds since the epoch, which all processes share.
    """

    def __init__(
        self, store: StateStore, sealer: Sealer, clock: Callable[[], float] = time.time
    ) -> None:
        self._store: Final = store
        self._sealer: Final = sealer
        self._clock: Final = clock

    @asynccontextmanager
    async def exclusive(self, key: str) -> AsyncIterator[HeldState]:
        """Hold one state; whoever else wants it waits. Raise `ProviderError` if too long."""
        owner = secrets.token_hex(8)
        sealed = await self._claim(key, owner)
        try:
            yield HeldState(self, key, owner, self._opened(key, sealed))
        finally:
            with suppress(StorageError):  # then the claim ends by itself
                await asyncio.shield(self._store.release(key, owner))

    async def keep(self, key: str, owner: str, value: Secret) -> None:
        """Keep a value for whoever holds the state; raise `ProviderError` if that cannot be."""
        sealed = self._sealer.seal(_PURPOSE, key.encode(), value.reveal())
        try:
            held = await self._store.keep(key, owner, sealed)
        except StorageError as error:
            raise ProviderError(f"what came back cannot be kept: {error}", retryable=True) from None
        if not held:
            raise ProviderError(
                "what came back was not kept, for it took so long that another process has begun",
                retryable=True,
            )

    async def _claim(self, key: str, owner: str) -> bytes | None:
        deadline = time.monotonic() + PATIENCE
        while True:
            now = self._clock()
            try:
                claimed, sealed = await self._store.claim(key, owner, now + CLAIM, now)
            except StorageError as error:
                raise ProviderError(str(error), retryable=True, untouched=True) from None
            if claimed:
                return sealed
            if time.monotonic() > deadline:
                raise ProviderError(
                    "another process has been at it for too long; try again",
                    retryable=True,
                    untouched=True,
                )
            await asyncio.sleep(_LOOK_EVERY)

    def _opened(self, key: str, sealed: bytes | None) -> Secret | None:
        if sealed is None:
            return None
        try:
            return Secret(self._sealer.unseal(_PURPOSE, key.encode(), sealed))
        except ConfigurationError as error:
            raise ProviderError(f"what was kept cannot be opened: {error}") from None
