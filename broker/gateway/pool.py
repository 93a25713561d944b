"""Keep upstream connections, and hand out the one used last, for it is the least likely stale.

Connections belong to an upstream and to no agent: nothing in them depends on who asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from broker.gateway.problems import Refusal, report
from broker.gateway.upstream import UpstreamConnection

if TYPE_CHECKING:
    from broker.gateway.guard import Connector
    from broker.gateway.limits import GatewayLimits
    from broker.gateway.route import Route


class Waiter(Protocol):
    """Whoever wants to send a request."""

    @property
    def waiting(self) -> bool:
        """Tell whether a connection is still wanted."""
        ...

    def connected(self, connection: UpstreamConnection) -> None:
        """Take a connection, for one request."""
        ...

    def unconnected(self, refusal: Refusal) -> None:
        """Learn that there is none to be had."""
        ...


class _Upstream:
    """The connections to one upstream; `idle` in the order in which they came back."""

    __slots__ = ("idle", "open", "opening", "waiters")

    def __init__(self) -> None:
        self.open: set[UpstreamConnection] = set()
        self.opening = 0
        self.idle: list[UpstreamConnection] = []
        self.waiters: deque[tuple[Route, Waiter]] = deque()

    @property
    def size(self) -> int:
        return len(self.open) + self.opening


class Pool:
    """All upstream connections of one gateway; belongs to one event loop."""

    def __init__(self, connector: Connector, limits: GatewayLimits) -> None:
        self._connector = connector
        self._limits = limits
        self._upstreams: dict[str, _Upstream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def size(self) -> int:
        """How many connections there are, idle ones included."""
        return sum(upstream.size for upstream in self._upstreams.values())

    def take(self, route: Route, waiter: Waiter, *, fresh: bool = False) -> None:
        """Give `waiter` a connection, at once or later; a new one if it must be `fresh`."""
        upstream = self._upstreams.get(route.pool_key)
        if upstream is None:
            upstream = self._upstreams[route.pool_key] = _Upstream()
        while upstream.idle and not fresh:
            connection = upstream.idle.pop()
            if connection.usable:
                waiter.connected(connection)
                return
        if upstream.size < self._limits.upstream_connections:
            self._open(upstream, route, waiter)
        elif len(upstream.waiters) < self._limits.upstream_waiting:
            upstream.waiters.append((route, waiter))
        else:
            waiter.unconnected(Refusal("overloaded", "too many requests wait for this service"))

    def made(self, connection: UpstreamConnection) -> None:
        """Count a connection that has been opened."""
        self._upstreams[connection.key].open.add(connection)

    def give(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can be used again."""
        upstream = self._upstreams[connection.key]
        following = _next(upstream) if upstream.waiters else None
        if following is not None:
            following[1].connected(connection)
        elif self._closed:
            connection.abort()
        else:
            connection.idle_since = None
            upstream.idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has been closed, and open one for whoever waits."""
        upstream = self._upstreams[connection.key]
        upstream.open.discard(connection)
        if connection in upstream.idle:
            upstream.idle.remove(connection)
        self._serve_next(upstream)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long; `now` is of the monotonic clock.

        A connection's time begins with the first sweep that finds it idle.
        """
        oldest = now - self._limits.pool_idle
        for key, upstream in list(self._upstreams.items()):
            stale = []
            for connection in upstream.idle:
                if connection.idle_since is None:
                    connection.idle_since = now
                elif connection.idle_since < oldest:
                    stale.append(connection)
            for connection in stale:
                upstream.idle.remove(connection)
                connection.abort()
            if not upstream.size and not upstream.waiters:
                del self._upstreams[key]

    async def close(self) -> None:
        """Close every idle connection and give up on those that are being opened."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for upstream in self._upstreams.values():
            upstream.opening = 0  # a task that was cancelled before it began did not count down
            while upstream.idle:
                upstream.idle.pop().abort()

    def _open(self, upstream: _Upstream, route: Route, waiter: Waiter) -> None:
        upstream.opening += 1
        task = asyncio.get_running_loop().create_task(self._connect(upstream, route, waiter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, upstream: _Upstream, route: Route, waiter: Waiter) -> None:
        def make() -> UpstreamConnection:
            return UpstreamConnection(route.pool_key, self._limits, self)

        try:
            result = await self._connector.open(route.upstream, make)
        except Exception as error:  # noqa: BLE001 - a defect costs one request, not the gateway
            report(error, "connecting to a service")
            result = Refusal("internal_error", "the gateway could not connect to the service")
        finally:
            upstream.opening -= 1
        if isinstance(result, Refusal):
            if waiter.waiting:
                waiter.unconnected(result)
            self._serve_next(upstream)
        elif not result.usable:
            waiter.unconnected(Refusal("upstream_closed", "the service closed the connection"))
        elif waiter.waiting:
            waiter.connected(result)
        else:
            self.give(result)

    def _serve_next(self, upstream: _Upstream) -> None:
        following = _next(upstream)
        if following is not None:
            self._open(upstream, *following)


def _next(upstream: _Upstream) -> tuple[Route, Waiter] | None:
    while upstream.waiters:
        following = upstream.waiters.popleft()
        if following[1].waiting:
            return following
    return None
