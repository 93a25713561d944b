"""An upstream that keeps every byte it receives, and answers as a test wants."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case."""
        lines = self.head.split(b"\r\n")[1:-2]
        pairs = (line.split(b": ", 1) for line in lines)
        return [(name.lower(), value) for name, value in pairs]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def raw(data: bytes, *, close: bool = False) -> Answer:
    """Answer with exactly these bytes."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if close:
            writer.close()

    return answer


def reply(body: bytes = b"ok", status: str = "200 OK", *lines: bytes) -> Answer:
    """Answer with a response of known length."""
    head = [b"HTTP/1.1 " + status.encode(), *lines, b"Content-Length: %d" % len(body), b"", b""]
    return raw(b"\r\n".join(head) + body)


@dataclass
class Upstream:
    """A server; `answer` is asked once the request is whole, `on_head` before its body."""

    port: int = 0
    answer: Answer = field(default_factory=reply)
    on_head: Answer | None = None
    requests: list[Received] = field(default_factory=list)
    streams: list[bytearray] = field(default_factory=list)
    aborted: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bytes_received(self) -> bytes:
        """Everything that ever arrived, on whatever connection."""
        return b"".join(map(bytes, self.streams))

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return len(self.streams)

    @property
    def last(self) -> Received:
        return self.requests[-1]

    async def silence(self, _: Received, __: asyncio.StreamWriter) -> None:
        """Answer nothing, for as long as the test runs."""
        await self.stopped.wait()

    async def until_requests(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.requests) < count:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.002)

    async def until_aborted(self, count: int = 1) -> None:
        async with asyncio.timeout(5):
            while self.aborted < count:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.002)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        self.writers.add(writer)
        try:
            while True:
                head = await _keep(stream, reader.readuntil(b"\r\n\r\n"))
                if self.on_head is not None:
                    await self.on_head(Received(head, b""), writer)
                request = Received(head, await _body(stream, reader, head))
                self.requests.append(request)
                await self.answer(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.aborted += 1
        finally:
            self.writers.discard(writer)
            writer.close()


async def _keep(stream: bytearray, reading: Awaitable[bytes]) -> bytes:
    try:
        data = await reading
    except asyncio.IncompleteReadError as error:
        stream += error.partial
        raise
    stream += data
    return data


async def _body(stream: bytearray, reader: asyncio.StreamReader, head: bytes) -> bytes:
    headers = Received(head, b"").headers
    length = int(dict(headers).get(b"content-length", b"0"))
    if (b"transfer-encoding", b"chunked") not in headers:
        return await _keep(stream, reader.readexactly(length))
    body = b""
    while size := int(await _keep(stream, reader.readuntil(b"\r\n")), 16):
        body += (await _keep(stream, reader.readexactly(size + 2)))[:-2]
    while await _keep(stream, reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body


@asynccontextmanager
async def recording_upstream(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Upstream]:
    """Serve on a free port of this machine."""
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, host, 0, ssl=context, limit=1 << 20)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        upstream.stopped.set()
        server.close()
        for writer in list(upstream.writers):
            writer.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await server.wait_closed()
