"""The gateway's listener: accept agents' connections, keep their deadlines, close in peace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from broker.gateway.authorize import Authorization
from broker.gateway.credentials import Credentials
from broker.gateway.downstream import accept
from broker.gateway.guard import Connector
from broker.gateway.limits import GatewayLimits
from broker.gateway.metrics import GatewayMetrics
from broker.gateway.pool import Pool
from broker.gateway.problems import report
from broker.gateway.record import Recorder
from broker.gateway.sparing import Room
from broker.gateway.works import WholeBodies, Works

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from broker.audit.base import BusyTrail
    from broker.gateway.base import Authority, Resource
    from broker.gateway.downstream import AgentConnection
    from broker.limits.limiter import Limiter
    from broker.model import Grant

_TICK: Final = 0.25
_BACKLOG: Final = 1024


class GatewayServer:
    """The data plane of one process; everything but `__init__` belongs to one event loop.

    `resource` is the gateway as agents know it, `redact_path` makes a request target fit for
    the trail. No service may reach the hosts and ports in `protected`, nor this listener.
    `limiter` counts what policy limits; without one that is refused.
    """

    def __init__(  # noqa: PLR0913 - what the gateway needs of the rest of the broker, by name
        self,
        authority: Authority,
        trail: BusyTrail,
        *,
        resource: Resource,
        redact_path: Callable[[bytes], str],
        limits: GatewayLimits | None = None,
        metrics: GatewayMetrics | None = None,
        protected: Iterable[tuple[str, int]] = (),
        limiter: Limiter | None = None,
    ) -> None:
        self._authority = authority
        self._resource = resource
        self._limits = limits or GatewayLimits()
        self._metrics = metrics or GatewayMetrics()
        self._recorder = Recorder(trail, redact_path, self._metrics)
        self._protected = set(protected)
        self._own: set[tuple[str, int]] = set()
        self._limiter = limiter
        self._connections: set[AgentConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._works: Works | None = None
        self._ticking: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The numeric addresses and ports it listens on."""
        sockets = [one for server in self._servers for one in server.sockets]
        return tuple(one.getsockname()[:2] for one in sockets)

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a bound socket, which is the gateway's to close from then on."""
        loop = asyncio.get_running_loop()
        works = self._works or self._build(loop)
        self._works = works
        self._own.add(listener.getsockname()[:2])
        server = await loop.create_server(
            lambda: accept(works, self._connections), sock=listener, backlog=_BACKLOG
        )
        self._servers.append(server)
        if self._ticking is None:
            self._ticking = loop.create_task(self._tick(works))

    def cut(self, is_revoked: Callable[[Grant], bool]) -> None:
        """Break off the requests under way whose grant has been revoked."""
        for connection in list(self._connections):
            try:
                connection.cut(is_revoked)
            except Exception as error:  # noqa: BLE001 - the others must be cut, too
                report(error, "cutting a revoked request")
                connection.abort()

    async def close(self, grace: float) -> None:
        """Accept nothing more, let requests under way end within `grace` seconds, then close."""
        for server in self._servers:
            server.close()
        works = self._works
        if works is None:
            return
        works.draining = True
        for connection in list(self._connections):
            connection.drain()
        deadline = works.clock() + grace
        while self._connections and works.clock() < deadline:  # noqa: ASYNC110 - only at the end
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()
        for task in works.tasks:
            task.cancel()
        await works.pool.close()
        await asyncio.sleep(0)  # for connections to learn that they are closed

    def _build(self, loop: asyncio.AbstractEventLoop) -> Works:
        connector = Connector(lambda: tuple(self._protected), own=lambda: tuple(self._own))
        works = Works(
            loop=loop,
            limits=self._limits,
            resource=self._resource,
            authorization=Authorization(self._authority, self._resource),
            credentials=Credentials(self._authority, time.monotonic),
            pool=Pool(connector, self._limits),
            recorder=self._recorder,
            clock=time.monotonic,
            limiter=self._limiter,
            room=Room(self._limits.crowd_bytes),
            whole_bodies=WholeBodies(self._limits.whole_bodies_bytes),
        )
        connections = self._connections
        self._metrics.watch(
            "broker_gateway_connections", "Agents' connections.", lambda: len(connections)
        )
        self._metrics.watch(
            "broker_gateway_upstream_connections",
            "Connections to services.",
            lambda: works.pool.size,
        )
        return works

    async def _tick(self, works: Works) -> None:
        # One clock for all deadlines: timers of its own would cost each request two of them.
        while True:
            await asyncio.sleep(_TICK)
            now = works.clock()
            for connection in list(self._connections):
                try:
                    connection.tick(now)
                except Exception as error:  # noqa: BLE001 - the others' deadlines count, too
                    report(error, "keeping a deadline")
                    connection.abort()
            works.pool.sweep(now)
            works.credentials.sweep()
