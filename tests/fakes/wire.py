"""A client that sends exactly the bytes it is given, and reads responses by the book."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 10.0


@dataclass(frozen=True)
class Response:
    """A response as it arrived; `body` is without its framing."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    head: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: bytes) -> bytes | None:
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def error(self) -> str | None:
        """The word in `Broker-Error`."""
        value = self.one(b"broker-error")
        return value.decode() if value is not None else None

    @property
    def problem(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_until_stuck(self, block: bytes, limit: int) -> int:
        """Send blocks until none is taken for a while; return how many bytes were."""
        self.writer.transport.set_write_buffer_limits(0)
        sent = 0
        try:
            while sent < limit:
                self.writer.write(block)
                sent += len(block)
                async with asyncio.timeout(0.3):
                    await self.writer.drain()
        except TimeoutError:
            pass
        return sent

    async def head(self) -> Response:
        """Read a response's head alone."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")[:-2]
        pairs = (line.split(b": ", 1) for line in lines)
        headers = [(name.lower(), value) for name, value in pairs]
        return Response(int(first.split(b" ")[1]), headers, b"", head)

    async def response(self, method: bytes = b"GET") -> Response:
        """Read a whole response."""
        response = await self.head()
        if method == b"HEAD" or response.status in {204, 304} or response.status < 200:
            return response
        if response.one(b"transfer-encoding") == b"chunked":
            body = b"".join([piece async for piece in self.chunks()])
        elif (length := response.one(b"content-length")) is not None:
            async with asyncio.timeout(PATIENCE):
                body = await self.reader.readexactly(int(length))
        else:
            body = await self.rest()
        return Response(response.status, response.headers, body, response.head)

    async def chunk(self) -> bytes:
        """Read one chunk; the last is empty."""
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def chunks(self) -> AsyncIterator[bytes]:
        while piece := await self.chunk():
            yield piece

    async def rest(self) -> bytes:
        """Read until the gateway closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def closed(self) -> bool:
        """Tell whether the gateway closes, and sends nothing before."""
        return await self.rest() == b""


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    """Connect to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
