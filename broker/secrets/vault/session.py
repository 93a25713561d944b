"""Stay logged in to Vault: renew the token in good time, log in anew when it ends or dies."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import SecretUnavailable
from broker.secrets.vault.client import VaultRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    import hvac

    from broker.secrets.vault.client import VaultConnection
    from broker.secrets.vault.login import Login, VaultToken

RENEW_AT: Final = 2 / 3
"""The part of a token's life after which it is renewed."""

LOGIN_PAUSE: Final = 2.0
"""How long, in seconds, a failed login is not tried again: Vault may lock out who insists."""

_WORTHWHILE: Final = 0.5
"""A renewal to less than this part of the first life is near the token's end: log in instead."""

_SHORTEST_WAIT: Final = 0.2
_LONGEST_PAUSE: Final = 30.0
_FAREWELL: Final = 2.0
_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Live:
    """A token in use. Times are of the monotonic clock; `until` is None if it does not end."""

    token: VaultToken
    client: hvac.Client
    renew_at: float | None
    until: float | None


class VaultSession:
    """Hold a client that is logged in. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        connection: VaultConnection,
        login: Login,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection: Final = connection
        self._login: Final = login
        self._clock: Final = clock
        self._lock: Final = asyncio.Lock()
        self._live: _Live | None = None
        self._failed: tuple[float, SecretUnavailable] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def client(self) -> hvac.Client:
        """Return a client that is logged in; raise `SecretUnavailable` if that cannot be."""
        if (live := self._usable()) is not None:
            return live.client
        async with self._lock:
            return (self._usable() or await self._log_in()).client

    async def client_after(self, refused: hvac.Client) -> hvac.Client | None:
        """Return a client to try again with, now that Vault forbade `refused` something.

        None means that the token is alive and the refusal stands.
        """
        async with self._lock:
            if self._live is not None and self._live.client is not refused:
                return self._live.client
            try:
                await self._connection.call(
                    "the look-up of its token", refused.auth.token.lookup_self
                )
            except VaultRefused:
                self._live = None
                return (await self._log_in()).client
            return None

    async def close(self) -> None:
        """Stop renewing; end the token if the broker got it by logging in."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        live, self._live = self._live, None
        if live is not None and live.token.ours:
            with suppress(SecretUnavailable, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._connection.call(
                        "the end of its token", live.client.auth.token.revoke_self
                    )

    def _usable(self) -> _Live | None:
        live = self._live
        ended = live is not None and live.until is not None and self._clock() >= live.until
        return None if ended else live

    async def _log_in(self) -> _Live:
        """Get another token; the one in use stays until there is another."""
        if self._failed is not None and self._clock() < self._failed[0]:
            raise self._failed[1]
        began = self._clock()
        try:
            token = await self._login.token(self._connection)
        except SecretUnavailable as error:
            self._failed = self._clock() + LOGIN_PAUSE, error
            raise
        self._failed = None
        client = self._connection.client(token.secret.reveal().decode())
        self._live = _Live(token, client, *_times(began, token.ttl))
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        return self._live

    async def _keep(self) -> None:
        """Renew the token, or log in anew, in good time, for as long as there is one that ends.

        Once it has ended it is for whoever needs a client to log in.
        """
        while (live := self._usable()) is not None and live.renew_at is not None:
            await asyncio.sleep(max(live.renew_at - self._clock(), _SHORTEST_WAIT))
            async with self._lock:
                if live is not self._usable():
                    continue
                try:
                    if not (live.token.renewable and await self._renew(live)):
                        await self._log_in()
                except SecretUnavailable as error:
                    _log.warning("the broker's login to Vault could not be prolonged: %s", error)
                    self._postpone(live)

    async def _renew(self, live: _Live) -> bool:
        began = self._clock()
        try:
            ttl = await self._connection.call(
                "the renewal of its token",
                lambda: int(live.client.auth.token.renew_self()["auth"]["lease_duration"]),
            )
        except SecretUnavailable:  # at the end of a token's greatest life OpenBao answers 500
            return False
        live.renew_at, live.until = _times(began, ttl)
        return ttl >= live.token.ttl * _WORTHWHILE

    def _postpone(self, live: _Live) -> None:
        now = self._clock()
        left = live.until - now if live.until is not None else _LONGEST_PAUSE
        live.renew_at = now + min(left / 3, _LONGEST_PAUSE)


def _times(began: float, ttl: int) -> tuple[float | None, float | None]:
    if ttl == 0:
        return None, None
    return began + ttl * RENEW_AT, began + ttl
