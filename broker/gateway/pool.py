"""Keep upstream connections, and hand out the one used last, for it is the least likely stale.

Connections belong to an upstream and to no agent: nothing in them depends on who asked.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING

from broker.gateway.problems import Refusal, report
from broker.gateway.sparing import Room, Sparing
from broker.gateway.upstream import UpstreamConnection
from broker.gateway.waiting import WaitingLine, share

if TYPE_CHECKING:
    from broker.gateway.guard import Connector
    from broker.gateway.limits import GatewayLimits
    from broker.gateway.route import Route
    from broker.gateway.waiting import Waiter


class _Upstream:
    """The connections to one upstream; `idle` in the order in which they came back."""

    __slots__ = ("idle", "open", "opening", "share", "waiters")

    def __init__(self, limits: GatewayLimits) -> None:
        self.share = share(limits.upstream_connections)
        self.open: set[UpstreamConnection] = set()
        self.opening: Counter[str] = Counter()  # by the agent for whom
        self.idle: list[UpstreamConnection] = []
        self.waiters = WaitingLine(limits.upstream_waiting)

    @property
    def size(self) -> int:
        return len(self.open) + (self.opening.total() if self.opening else 0)

    def may_have_more(self, agent: str) -> bool:
        """Tell whether an agent has less than its share, so that others find a connection, too."""
        if self.size - len(self.idle) < self.share:
            return True
        return sum(one.agent == agent for one in self.open) + self.opening[agent] < self.share

    def next(self) -> tuple[Route, Waiter] | None:
        """Return who is to have a connection now, if anybody waits for one."""
        return self.waiters.next(self.may_have_more) if self.waiters else None


class Pool:
    """All upstream connections of one gateway; belongs to one event loop."""

    def __init__(self, connector: Connector, limits: GatewayLimits) -> None:
        self._connector = connector
        self._limits = limits
        self._upstreams: dict[str, _Upstream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = Room(limits.crowd_bytes)
        self._closed = False

    @property
    def size(self) -> int:
        """How many connections there are, idle ones included."""
        return sum(upstream.size for upstream in self._upstreams.values())

    def take(self, route: Route, waiter: Waiter, *, fresh: bool = False) -> None:
        """Give `waiter` a connection, at once or later; a new one if it must be `fresh`."""
        upstream = self._upstreams.get(route.pool_key)
        if upstream is None:
            upstream = self._upstreams[route.pool_key] = _Upstream(self._limits)
        in_use = len(upstream.open) - len(upstream.idle)
        if in_use < upstream.share or upstream.may_have_more(waiter.agent):
            while upstream.idle and not fresh:
                connection = upstream.idle.pop()
                if connection.usable:
                    waiter.connected(connection)
                    return
            free = upstream.size < self._limits.upstream_connections
            if free and upstream.may_have_more(waiter.agent):
                self._open(upstream, route, waiter)
                return
        if not upstream.waiters.join(route, waiter):
            waiter.unconnected(Refusal("overloaded", "too many requests wait for this service"))

    def made(self, connection: UpstreamConnection) -> None:
        """Count a connection that has been opened."""
        self._upstreams[connection.key].open.add(connection)

    def give(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can be used again."""
        upstream = self._upstreams[connection.key]
        following = upstream.next()
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
            upstream.opening.clear()  # a task that was cancelled before it began did not count down
            while upstream.idle:
                upstream.idle.pop().abort()

    def _open(self, upstream: _Upstream, route: Route, waiter: Waiter) -> None:
        if self.size >= self._limits.connections:
            self._close_idle()
        upstream.opening[waiter.agent] += 1
        task = asyncio.get_running_loop().create_task(self._connect(upstream, route, waiter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, upstream: _Upstream, route: Route, waiter: Waiter) -> None:
        connection = UpstreamConnection(route.pool_key, self._limits, self)

        def make() -> asyncio.BaseProtocol:
            # With TLS, uvloop leaves unread what does not fit into a buffer (0.22).
            roomy = route.secure or self.size <= self._limits.roomy_connections
            return connection if roomy else Sparing(connection, self._room)

        try:
            result = await self._connector.open(route.upstream, make)
        except Exception as error:  # noqa: BLE001 - a defect costs one request, not the gateway
            report(error, "connecting to a service")
            result = Refusal("internal_error", "the gateway could not connect to the service")
        finally:
            upstream.opening[waiter.agent] -= 1
            if not upstream.opening[waiter.agent]:
                del upstream.opening[waiter.agent]
        if isinstance(result, Refusal):
            if waiter.waiting:
                waiter.unconnected(result)
            self._serve_next(upstream)
        elif not connection.usable:
            waiter.unconnected(Refusal("upstream_closed", "the service closed the connection"))
        elif waiter.waiting:
            waiter.connected(connection)
        else:
            self.give(connection)

    def _close_idle(self) -> None:
        """Close the connection that has been idle the longest, to whatever service."""
        idle = [upstream.idle for upstream in self._upstreams.values() if upstream.idle]
        if idle:
            # Not judged by the clock yet is who came back last.
            longest = min(idle, key=lambda ones: ones[0].idle_since or math.inf)
            longest.pop(0).abort()

    def _serve_next(self, upstream: _Upstream) -> None:
        following = upstream.next()
        if following is not None:
            self._open(upstream, *following)
