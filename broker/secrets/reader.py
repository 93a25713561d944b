"""Read secret references: the right backend, one fetch at a time, and a stated cache."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, ConfigurationError, SecretUnavailable, did_you_mean
from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.secrets.base import SecretBackend
    from providers.base import Secret

FRESH_FOR: Final = 10.0
"""How long, in seconds, a value is used without asking its backend again."""

STALE_FOR: Final = 300.0
"""How long, in seconds since it was read, a value stands in while its backend is down."""

RETRY_AFTER: Final = 2.0
"""How long, in seconds, a stale value is used before the backend is asked again."""

_log: Final = logging.getLogger(__name__)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9_-]{0,15}", re.ASCII)


@dataclass(slots=True)
class _Cached:
    secret: Secret
    read_at: float
    ask_at: float


class Secrets:
    """Read secrets from the backends of their schemes.

    A backend's refusal (no such secret, not permitted) ends the use of a value at once; only
    where the backend cannot answer does the last value stand in, for `stale_for` at most.
    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        backends: Iterable[SecretBackend],
        *,
        fresh_for: float = FRESH_FOR,
        stale_for: float = STALE_FOR,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends: Final = {backend.scheme: backend for backend in backends}
        self._fresh_for: Final = fresh_for
        self._stale_for: Final = stale_for
        self._clock: Final = clock
        self._cache: Final[dict[str, _Cached]] = {}
        self._fetches: Final[dict[str, asyncio.Task[Secret]]] = {}
        self._under_way: Final[set[asyncio.Task[Secret]]] = set()

    def check(self, reference: str) -> None:
        """Raise `ConfigurationError` unless `reference` is well formed; does no I/O.

        The error does not quote it: where a reference is wrong, it may be the secret itself.
        """
        backend, rest = self._split(reference)
        backend.check(rest)

    async def read(self, reference: str) -> Secret:
        """Return the secret's value.

        Raises:
            ConfigurationError: the reference is malformed.
            SecretUnavailable: the value cannot be had; says why and what to do.
        """
        cached = self._cache.get(reference)
        if cached is not None and self._clock() < cached.ask_at:
            return cached.secret
        fetch = self._fetches.get(reference)
        if fetch is None:
            backend, rest = self._split(reference)
            fetch = asyncio.create_task(self._fetch(reference, backend, rest))
            self._fetches[reference] = fetch
            self._under_way.add(fetch)
            fetch.add_done_callback(lambda task: self._forget(reference, task))
        # Others may wait for the same fetch: a caller that gives up must not end it.
        return await asyncio.shield(fetch)

    def invalidate(self, reference: str | None = None) -> None:
        """Forget a value, or all; the next read asks the backend."""
        forgotten = [reference] if reference is not None else list(self._cache | self._fetches)
        for each in forgotten:
            self._cache.pop(each, None)
            # A fetch under way may bring the old value: nobody new joins it or learns from it.
            self._fetches.pop(each, None)

    async def close(self) -> None:
        """Forget every value and release the backends."""
        self.invalidate()
        under_way = list(self._under_way)
        for fetch in under_way:
            fetch.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for backend in self._backends.values():
            await backend.close()

    async def _fetch(self, reference: str, backend: SecretBackend, rest: str) -> Secret:
        try:
            value = await backend.read(rest)
        except SecretUnavailable as error:
            return self._stand_in(reference, error)
        if self._is_current(reference):
            now = self._clock()
            self._cache[reference] = _Cached(value.secret, now, now + self._fresh_for)
        return value.secret

    def _stand_in(self, reference: str, error: SecretUnavailable) -> Secret:
        cached = self._cache.get(reference)
        if cached is None or not self._is_current(reference):
            raise error
        now = self._clock()
        if not error.retryable or now - cached.read_at >= self._stale_for:
            del self._cache[reference]
            raise error
        age = now - cached.read_at
        _log.warning("%s: using the value of %.0f s ago: %s", reference, age, error)
        cached.ask_at = min(now + RETRY_AFTER, cached.read_at + self._stale_for)
        return cached.secret

    def _is_current(self, reference: str) -> bool:
        return self._fetches.get(reference) is asyncio.current_task()

    def _forget(self, reference: str, fetch: asyncio.Task[Secret]) -> None:
        self._under_way.discard(fetch)
        if self._fetches.get(reference) is fetch:
            del self._fetches[reference]
        if not fetch.cancelled():
            fetch.exception()  # all who waited may have given up: it has been looked at

    def _split(self, reference: str) -> tuple[SecretBackend, str]:
        scheme, colon, rest = reference.partition(":")
        backend = self._backends.get(scheme)
        if backend is not None and colon and rest:
            return backend, rest
        schemes = ", ".join(f"{known}:..." for known in self._backends)
        hint = did_you_mean(scheme, self._backends) if colon and _SCHEME.fullmatch(scheme) else ""
        raise ConfigurationError(
            f"not a secret reference; expected one of {schemes}{hint} "
            "(a secret itself never stands in a policy)"
        )


class ProviderSecrets:
    """Read secrets for providers (a `SecretReader`), failing as a provider fails."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets: Final = secrets

    async def read(self, reference: str) -> Secret:
        """Return the secret's value; raise `ProviderError` if it cannot be had."""
        try:
            return await self._secrets.read(reference)
        except SecretUnavailable as error:
            raise ProviderError(str(error), retryable=error.retryable, untouched=True) from None
        except BrokerError as error:
            raise ProviderError(str(error)) from None
