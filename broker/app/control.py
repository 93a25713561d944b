"""The control plane's HTTP server: uvicorn, bounded in time and size against hostile callers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.app.descriptors import CONTROL
from broker.gateway.crowding import make_way, standing

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from starlette.types import ASGIApp

HEAD_BYTES: Final = 32 << 10
"""The most that a request's line and header fields may have together."""

REQUEST_SECONDS: Final = 15.0
"""How long a caller may take to send a request."""

_KEEP_ALIVE: Final = 30


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol, which by itself waits for ever for heads without end."""

    most_connections = CONTROL
    _in_head = True
    _head_bytes = 0
    _idle_since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> tuple[int, float] | None:
        """How good its claim to its place is (`crowding.Idler`)."""
        cycle: Any = self.cycle  # None before the first request, whatever it says of itself
        if cycle is not None and not cycle.response_complete:
            return None
        # Since when it has nothing to do: who has waited longest for a request goes first.
        return standing(
            closing=False, served=cycle is not None, in_head=False, deadline=self._idle_since
        )

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request soon, and make room for it (`asyncio.Protocol`)."""
        if len(self.connections) >= self.most_connections:
            known = (one for one in self.connections if isinstance(one, BoundedHttp))
            self.connections.difference_update(make_way(known))
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more (`asyncio.Protocol`)."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a head that does not end in time (`asyncio.Protocol`)."""
        super().data_received(data)
        self._head_bytes += len(data) if self._in_head else 0
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The request's head has more than {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """Begin to count and to wait (httptools)."""
        self._in_head, self._head_bytes = True, 0
        self._expect_request()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting (httptools)."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting (httptools)."""
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note since when there is nothing to do (uvicorn)."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _expect_request(self) -> None:
        self._expect_nothing()
        self._idle_since = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Uvicorn(uvicorn.Server):
    """Uvicorn without signal handlers of its own: the broker stops as a whole.

    It looks around once a second, for the date, and not ten times to see whether it is to stop.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let `serve` return once requests under way have ended."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Serve until it is to stop (uvicorn)."""
        while not await self.on_tick(0):  # of ten that it counts, the one that does something
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ControlServer:
    """Serve an application on a bound socket, within the running event loop.

    Of at most `connections` that are open, those that do nothing make way for others.
    """

    def __init__(self, app: ASGIApp, drain: int, connections: int = CONTROL) -> None:
        config = uvicorn.Config(
            app,
            http=type("Bounded", (BoundedHttp,), {"most_connections": connections}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=connections + 1,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=drain,
        )
        self._server = _Uvicorn(config)
        self._serving: asyncio.Task[Any] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections from the moment this returns."""
        self._serving = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Accept nothing more, and let requests under way end."""
        self._server.stop()
        if self._serving is not None:
            await self._serving
