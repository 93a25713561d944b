"""The control plane's server, over raw sockets: what has no end in time or size is cut."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from broker.app import control
from broker.app.control import HEAD_BYTES, ControlServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def app(begun: asyncio.Event) -> FastAPI:
    """An application that says how much it was sent, and when it has begun to be slow."""
    application = FastAPI()

    @application.post("/count")
    async def count(body: dict[str, Any]) -> int:
        return len(body["text"])

    @application.get("/slow")
    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.3)
        return "done"

    return application


@asynccontextmanager
async def serving(
    connections: int = 1024, begun: asyncio.Event | None = None
) -> AsyncIterator[tuple[ControlServer, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    server = ControlServer(app(begun or asyncio.Event()), drain=5, connections=connections)
    await server.start(listener)
    try:
        yield server, port
    finally:
        await server.close()


async def send(port: int, data: bytes) -> bytes:
    """Send bytes on a connection of their own; return all that comes until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


async def test_who_does_nothing_makes_way() -> None:
    async with serving(connections=8) as (_, port):
        kept = await asyncio.open_connection("127.0.0.1", port)
        kept[1].write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        answer = await send(port, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (await kept[0].readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        for _, writer in (kept, *idle):
            writer.close()


async def test_serves_from_the_moment_that_start_returns() -> None:
    async with serving() as (_, port):
        body = b'{"text": "' + b"x" * 100_000 + b'"}'
        head = b"POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        answer = await send(port, head + body)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"100000")
    assert b"server:" not in answer.lower()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * (HEAD_BYTES + 1),
        b"GET / HTTP/1.1\r\nX: " + b"a" * (HEAD_BYTES + 1),
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (HEAD_BYTES // 6 + 1),
    ],
)
async def test_a_head_without_end_is_refused(head: bytes) -> None:
    async with serving() as (_, port):
        answer = await send(port, head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert str(HEAD_BYTES).encode() in answer


@pytest.mark.parametrize(
    "part", [b"", b"GET / HTT", b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_a_request_that_does_not_come_is_not_waited_for(
    part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.2)
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(part)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_connection_serves_several_requests() -> None:
    async with serving() as (_, port):
        one = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await send(port, one + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_closing_lets_a_request_under_way_end() -> None:
    begun = asyncio.Event()
    async with serving(begun=begun) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(begun.wait(), 20)
        await server.close()
        assert (await reader.read()).endswith(b'"done"')
        writer.close()
        with pytest.raises(OSError, match=str(port)):
            await asyncio.open_connection("127.0.0.1", port)
