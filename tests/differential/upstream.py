"""An upstream that keeps the bytes of each connection as they come, and answers validly."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import httptools

from tests.differential.readers import Seen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_REPLY: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_CLOSE: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"


class RecordedConnection(asyncio.Protocol):
    """One connection: its bytes, and the requests that httptools reads in them.

    `starts` is where each request begins, and `whole` where the last whole one ends: a request
    is sent only after the response to the one before it. `error` is what httptools said when it
    could not go on.
    """

    def __init__(self) -> None:
        self.stream = bytearray()
        self.seen: list[Seen] = []
        self.starts: list[int] = []
        self.whole = 0
        self.error: str | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._early = False
        self._position = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._position = len(self.stream)
        self.stream += data
        if self.error is not None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.error = f"{type(error).__name__}: {error}"
            return
        if self.seen and self.seen[-1].complete:
            self.whole = len(self.stream)

    def on_message_begin(self) -> None:
        self.seen.append(Seen())
        self.starts.append(self._position)

    def on_url(self, part: bytes) -> None:
        self.seen[-1].target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        seen = self.seen[-1]
        (seen.trailers if seen.begun else seen.headers).append((name.lower(), value))

    def on_headers_complete(self) -> None:
        seen = self.seen[-1]
        seen.method = self._parser.get_method()
        seen.begun = True
        self._early = b"/early" in seen.target
        if self._early:
            self._answer(seen)

    def on_body(self, part: bytes) -> None:
        self.seen[-1].body += part

    def on_message_complete(self) -> None:
        self.seen[-1].complete = True
        if not self._early:
            self._answer(self.seen[-1])

    def _answer(self, seen: Seen) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if b"/chunked" in seen.target:
            head, body = _CHUNKED, b"2\r\nok\r\n0\r\n\r\n"
        else:
            head, body = (_CLOSE if b"/close" in seen.target else _REPLY), b"ok"
        transport.write(head + (b"" if seen.method == b"HEAD" else body))
        if head is _CLOSE:
            transport.close()


@asynccontextmanager
async def raw_upstream() -> AsyncIterator[tuple[int, list[RecordedConnection]]]:
    """Serve on a free port; yield it, and what comes in."""
    connections: list[RecordedConnection] = []

    def made() -> RecordedConnection:
        connections.append(RecordedConnection())
        return connections[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(made, "127.0.0.1", 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
