"""Counts that many brokers share: in one Redis or Valkey.

One script judges a request's every limit and counts it, or neither, by the server's own clock:
the `limits` library would ask for one limit after the other, by the clock of whoever asks. What
cannot be counted must not pass: whatever goes wrong is a `LimitsUnavailable`.

A broker says every few seconds that the places it holds are still taken. Those of one that has
died, or that cannot reach the server, are free `HELD_FOR` seconds after it last said so.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError, ResponseError

from broker.errors import ConfigurationError, LimitsUnavailable
from broker.files import read_private
from broker.limits.base import FREE, Ticket
from broker.limits.quota import Exceeded
from broker.limits.windows import total_used_up, whole_seconds
from broker.model import LONGEST_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from pathlib import Path

    from broker.limits.quota import Quota

HELD_FOR: Final = 30.0
"""Seconds for which a place is taken unless its broker says again that it is."""

KEY_PREFIX: Final = "agent-token-broker:limits:"

_PATIENCE: Final = 2.0
_CONNECTIONS: Final = 16
_TOTALS_KEPT: Final = LONGEST_LIFETIME + 3600
_MOST_AT_ONCE: Final = 500
_KEEPS: Final = "noeviction"

_TAKE: Final = """
local windows, places, totals = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ticket, held_for, kept = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local function most(index) return tonumber(ARGV[5 + 2 * index]) end
local function window(index) return tonumber(ARGV[6 + 2 * index]) end

for index = windows + 1, windows + places do
    redis.call('ZREMRANGEBYSCORE', KEYS[index], '-inf', now)
    if redis.call('ZCARD', KEYS[index]) >= most(index) then return {index, '1'} end
end
local stamp = string.format('%.6f', now)
local full, longest = 0, -1
for index = 1, windows do
    -- What was counted "later" was counted before the clock was set back.
    local place, latest = 0, redis.call('LINDEX', KEYS[index], 0)
    while latest and tonumber(latest) > now do
        redis.call('LSET', KEYS[index], place, stamp)
        place = place + 1
        latest = redis.call('LINDEX', KEYS[index], place)
    end
    local entry = redis.call('LINDEX', KEYS[index], most(index) - 1)
    if entry then
        local wait = tonumber(entry) + window(index) - now
        if wait >= 0 and wait > longest then full, longest = index, wait end
    end
end
if full > 0 then return {full, tostring(longest)} end
for index = windows + places + 1, windows + places + totals do
    if tonumber(redis.call('GET', KEYS[index]) or 0) >= most(index) then return {index, '0'} end
end

for index = 1, windows do
    redis.call('LPUSH', KEYS[index], stamp)
    redis.call('LTRIM', KEYS[index], 0, most(index) - 1)
    redis.call('EXPIRE', KEYS[index], window(index) + 1)
end
for index = windows + 1, windows + places do
    redis.call('ZADD', KEYS[index], now + held_for, ticket)
    redis.call('EXPIRE', KEYS[index], math.ceil(held_for) + 1)
end
for index = windows + places + 1, windows + places + totals do
    redis.call('INCR', KEYS[index])
    redis.call('EXPIRE', KEYS[index], kept)
end
return {0, '0'}
"""
_HOLD: Final = """
local clock, held_for = redis.call('TIME'), tonumber(ARGV[1])
local until_ = clock[1] + clock[2] / 1000000 + held_for
for index, key in ipairs(KEYS) do
    redis.call('ZADD', key, until_, ARGV[index + 1])
    redis.call('EXPIRE', key, math.ceil(held_for) + 1)
end
"""
_RELEASE: Final = """
for index, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[index]) end
"""

_log: Final = logging.getLogger(__name__)


class _NoPassword(RedisError):
    """Why there is no password, told so that the client drops the connection it was for.

    Of any other error the client keeps the connection, as whoever the server takes it for, and in
    the server's first database.
    """


class PasswordFile(CredentialProvider):
    """Read the password anew for each connection, so that it can be changed while we run."""

    def __init__(self, path: Path, username: str | None) -> None:
        self._path: Final = path
        self._username: Final = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, after the name of the user if one is set.

        Raises `ConfigurationError` if there is no password to be had.
        """
        password = read_private(self._path).decode(errors="replace").strip()
        if not password:
            raise ConfigurationError(f"{self._path}: is empty; write the password to it")
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same: the file is small and on this machine. Raises `_NoPassword`."""
        try:
            return self.get_credentials()
        except ConfigurationError as error:
            raise _NoPassword(str(error)) from None


class RedisCounts:
    """Count what all brokers do that share a server (`broker.limits.base.Counts`).

    `url` is `redis://`, `rediss://` or `unix://`; `ca_file` says whose certificates are trusted
    where they are not publicly known. Does no I/O.
    """

    def __init__(
        self,
        url: str,
        *,
        password: PasswordFile | None = None,
        ca_file: Path | None = None,
        held_for: float = HELD_FOR,
    ) -> None:
        tls: dict[str, Any] = {"ssl_ca_certs": str(ca_file)} if ca_file else {}
        # One retry, for connections that the server has closed meanwhile; after a time-out there
        # is none, for the request may have been counted.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_PATIENCE,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 1, supported_errors=(NotConnected,)),
            credential_provider=password,
            **tls,
        )
        client = Redis.from_pool(pool)
        self._client: Final = client
        self._take: Final = client.register_script(_TAKE)
        self._hold: Final = client.register_script(_HOLD)
        self._release: Final = client.register_script(_RELEASE)
        self._held_for: Final = held_for
        self._held: Final[dict[str, Ticket]] = {}
        self._leaving: Final[list[Ticket]] = []
        self._giving: asyncio.Task[None] | None = None
        self._turn: Final = asyncio.Lock()  # what is given back must not be held once more

    def take_now(self, quota: Quota) -> Ticket | Exceeded | None:  # noqa: ARG002
        """Return None: the server has to be asked."""
        return None

    async def take(self, quota: Quota) -> Ticket | Exceeded:
        """Count a request, or say which limit is used up; raise `LimitsUnavailable`."""
        ticket = Ticket(quota.places, secrets.token_hex(8)) if quota.places else FREE
        caps = (*quota.places, *quota.totals)
        keys = [window.count_key for window in quota.windows] + [cap.key for cap in caps]
        counts = (len(quota.windows), len(quota.places), len(quota.totals))
        bounds = [(one.item.amount, one.item.get_expiry()) for one in quota.windows]
        bounds += [(cap.most, 0) for cap in caps]
        answer = await self._ask(
            self._take(
                [_key(key) for key in keys],
                [*counts, ticket.id, self._held_for, _TOTALS_KEPT, *(n for b in bounds for n in b)],
            )
        )
        index = int(answer[0]) - 1
        if index < 0:
            if ticket.places:
                self._held[ticket.id] = ticket
            return ticket
        return _exceeded(quota, index, float(answer[1]))

    def give_back(self, ticket: Ticket) -> None:
        """Give back a request's places."""
        if self._held.pop(ticket.id, None) is not None:
            self._leaving.append(ticket)
            if self._giving is None or self._giving.done():
                self._giving = asyncio.get_running_loop().create_task(self._give_back())

    async def keep(self) -> None:
        """Say every few seconds that what is held is still taken."""
        while True:
            await asyncio.sleep(self._held_for / 6)
            held = list(self._held.values())
            try:
                for begin in range(0, len(held), _MOST_AT_ONCE):
                    await self._keep(held[begin : begin + _MOST_AT_ONCE])
            except LimitsUnavailable as error:
                _log.warning("limits: places could not be kept: %s", error)

    async def check(self) -> None:
        """Raise `LimitsUnavailable` if the server cannot count, or may forget what it counted."""
        await self._ask(self._hold([_key("check")], [self._held_for, "check"]))
        memory = await self._ask(self._memory())
        policy = memory.get("maxmemory_policy", _KEEPS)
        if memory.get("maxmemory") and policy != _KEEPS:
            raise LimitsUnavailable(
                "the server of limits.url may forget counts when its memory is full "
                f"(maxmemory-policy {policy}); set that to {_KEEPS}"
            )

    async def close(self) -> None:
        """Give back what is still held, and close the connections."""
        self._leaving.extend(self._held.values())
        self._held.clear()
        await self._give_back()
        if self._giving is not None:
            await self._giving
        await self._client.aclose()

    async def _keep(self, tickets: Sequence[Ticket]) -> None:
        async with self._turn:
            keys, ids = _named(one for one in tickets if one.id in self._held)
            if keys:
                await self._ask(self._hold(keys, [self._held_for, *ids]))

    async def _give_back(self) -> None:
        """Give back what is leaving, all that waits by now at once."""
        while self._leaving:
            async with self._turn:
                keys, ids = _named(self._leaving[:_MOST_AT_ONCE])
                del self._leaving[:_MOST_AT_ONCE]
                if keys:
                    await self._return(keys, ids)

    async def _return(self, keys: Sequence[str], ids: Sequence[str]) -> None:
        try:
            await self._ask(self._release(keys, ids))
        except LimitsUnavailable as error:
            told = "limits: %d places are free only after %.0f s: %s"
            _log.warning(told, len(keys), self._held_for, error)

    async def _memory(self) -> dict[str, Any]:
        """Return what the server says of its memory; nothing where we may not ask."""
        try:
            found: dict[str, Any] = await self._client.info("memory")
        except ResponseError:
            return {}
        return found

    async def _ask(self, asking: Awaitable[Any]) -> Any:
        """Return the server's answer. Its error texts may quote what it was sent."""
        try:
            return await asking
        except _NoPassword as error:
            raise LimitsUnavailable(str(error)) from None
        except Exception as error:  # noqa: BLE001 - from what is no Redis, the client raises anything
            raise LimitsUnavailable(
                f"the server of limits.url cannot count now ({type(error).__name__})"
            ) from None


def _key(name: str) -> str:
    return KEY_PREFIX + name


def _named(tickets: Iterable[Ticket]) -> tuple[list[str], list[str]]:
    """Return the key of each place of some tickets, and the ticket's id for each key."""
    pairs = [(_key(place.key), one.id) for one in tickets for place in one.places]
    return [key for key, _ in pairs], [ticket for _, ticket in pairs]


def _exceeded(quota: Quota, index: int, wait: float) -> Exceeded:
    """Return the limit of a key's index, in the order in which the script has them."""
    windows, places = len(quota.windows), len(quota.places)
    if index < windows:
        return Exceeded("rate", quota.windows[index].name, whole_seconds(wait))
    if index < windows + places:
        return Exceeded("concurrent", quota.places[index - windows].name, 1)
    return total_used_up(quota, index - windows - places)
