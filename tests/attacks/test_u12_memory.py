"""U12: bombs, slow agents and slow services, in both directions: constant memory, and deadlines.

`GATEWAY_BODY` is how many MiB the long bodies have (10240 for the figures in docs/http.md),
`GATEWAY_CROWD` how many agents are slow.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import sys
import time
import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from broker.gateway.limits import GatewayLimits
from tests.attacks.gateway_process import gateway_process
from tests.fakes import wire as wire_module
from tests.fakes.gateway import gateway_bench, policy_text
from tests.fakes.upstream import raw
from tests.fakes.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.attacks.gateway_process import GatewayProcess
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

MIB = 1 << 20
BODY = int(os.environ.get("GATEWAY_BODY", "128")) * MIB
CROWD = int(os.environ.get("GATEWAY_CROWD", "120"))
MOST = 64
"""MiB that the gateway's memory may grow by."""

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
BLOCK = bytes(MIB)


@dataclass
class Service:
    """An upstream that keeps nothing, and answers by the request's path."""

    received: int = 0
    sent: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self.answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()

    async def answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        _, path, *_ = head.split(b" ")
        if path == b"/stuck":
            await asyncio.Event().wait()
        if b"chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                self.received += len(await reader.readexactly(size + 2)) - 2
            await reader.readexactly(2)
        elif b"Content-Length: " in head:
            left = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while left:
                read = len(await reader.read(min(left, MIB)))
                self.received += read
                left -= read
        length = BODY if path == b"/long" else 2
        if path == b"/endless":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await self.send(writer, b"%x\r\n%b\r\n" % (MIB, BLOCK))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for _ in range(length // MIB):
            await self.send(writer, BLOCK)
        writer.write(bytes(length % MIB))
        await writer.drain()

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent += len(data)
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def before(
    directory: Path, fields: str = ""
) -> AsyncIterator[tuple[GatewayProcess, Service]]:
    """A gateway in a process of its own before such a service, warmed up."""
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, limit=2 * MIB)
    port = server.sockets[0].getsockname()[1]
    with gateway_process(port, directory / "audit", fields) as gateway:
        async with connected(gateway) as wire:
            for _ in range(50):
                await wire.send(gateway.head(b"GET", b"/api/x"))
                assert (await wire.response()).status == 200
        try:
            yield gateway, service
        finally:
            server.close()
            for task in service.tasks:
                task.cancel()
            await asyncio.gather(*service.tasks, return_exceptions=True)


@asynccontextmanager
async def connected(gateway: GatewayProcess, *, small: bool = False) -> AsyncIterator[Wire]:
    """Connect; with a `small` buffer in the system, so that less is soon too much."""
    one = socket.socket()
    if small:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=one, limit=4 * MIB)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@needs_proc
@pytest.mark.parametrize("scrub", ["on", "off"])
async def test_u12_long_bodies_take_no_memory(tmp_path: Path, scrub: str) -> None:
    async with before(tmp_path, f", scrub: {scrub}") as (gateway, service):
        before_all = gateway.memory()
        async with connected(gateway) as wire:
            await wire.send(gateway.head(b"GET", b"/api/long"))
            assert (await wire.head()).one(b"content-length") == b"%d" % BODY
            left = BODY
            while left:
                left -= len(await wire.reader.read(min(left, 4 * MIB)))
            for framing in (b"Content-Length: %d" % BODY, b"Transfer-Encoding: chunked"):
                await wire.send(gateway.head(b"POST", b"/api/x", framing))
                chunked = framing.endswith(b"chunked")
                for _ in range(BODY // MIB):
                    await wire.send(b"%x\r\n%b\r\n" % (MIB, BLOCK) if chunked else BLOCK)
                await wire.send(b"0\r\n\r\n" if chunked else b"")
                assert (await wire.response()).status == 200
        assert service.received == 2 * BODY
        grown = gateway.memory("VmHWM") - before_all
        sys.stdout.write(f"{BODY // MIB} MiB, scrub {scrub}: {grown:.1f} MiB more memory\n")
        assert grown < MOST


@needs_proc
@pytest.mark.parametrize("kind", ["downloads", "uploads", "heads"])
async def test_u12_a_crowd_of_slow_agents_takes_little_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take nothing of an endless response, send to who takes nothing, or never come to it."""
    monkeypatch.setattr(wire_module, "PATIENCE", 90.0)  # all of it is done by one process here
    async with before(tmp_path) as (gateway, service), AsyncExitStack() as stack:
        before_all = gateway.memory()
        crowd = [
            await stack.enter_async_context(connected(gateway, small=True)) for _ in range(CROWD)
        ]
        for wire in crowd:
            if kind == "downloads":
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
                wire.writer.write(gateway.head(b"GET", b"/api/endless"))
            elif kind == "uploads":
                length = b"Content-Length: %d" % (1 << 30)
                wire.writer.write(gateway.head(b"POST", b"/api/stuck", length) + BLOCK)
            else:
                wire.writer.write(gateway.head(b"GET", b"/api/x")[:-2] + b"X: y")
        sent = -1
        while sent != service.sent:  # until nothing moves any more
            sent = service.sent
            await asyncio.sleep(1)
        async with connected(gateway) as good:
            for _ in range(20):
                await good.send(gateway.head(b"GET", b"/api/x"))
                assert (await good.response()).status == 200
                await asyncio.sleep(0.05)
        grown = gateway.memory("VmHWM") - before_all
        sys.stdout.write(f"{CROWD} slow {kind}: {grown:.1f} MiB more memory\n")
        assert grown < MOST


@needs_proc
async def test_u12_of_who_is_refused_nothing_is_remembered(gateway: GatewayBench) -> None:
    """Nobody needs a task token to send a long head, and to stay connected."""
    own = [tracemalloc.Filter(inclusive=True, filename_pattern="*/broker/gateway/*")]
    lines = [b"X-%d: %b" % (number, b"x" * 300) for number in range(90)]
    async with AsyncExitStack() as stack:
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(40):
            wire = await stack.enter_async_context(gateway.connect())
            await wire.send(gateway.head(b"GET", b"/api/x", *lines, token=b"eyJ.no.token"))
            assert (await wire.response()).status == 401
        kept = tracemalloc.take_snapshot().filter_traces(own).statistics("filename")
        assert sum(one.size for one in kept) < 40 * 8_000


async def test_u12_a_slow_service_makes_the_agent_wait(tmp_path: Path) -> None:
    async with before(tmp_path) as (gateway, _), connected(gateway) as wire:
        before_all = gateway.memory()
        await wire.send(gateway.head(b"POST", b"/api/stuck", b"Content-Length: 1000000000"))
        assert await wire.send_until_stuck(BLOCK, 1_000_000_000) < 50_000_000
        assert gateway.memory("VmHWM") - before_all < MOST


@pytest.mark.timeout(15)
@pytest.mark.parametrize(
    "cookie",
    [
        b"a=b; Path=x" + b" " * 60_000 + b"y",
        b"a=b; Domain" + b"\t" * 60_000 + b"y",
        b"a=b;" + b" " * 60_000 + b"pathx",
        b"a=b" + b";Path" * 10_000,
    ],
    ids=["path", "domain", "blanks", "many"],
)
async def test_u12_a_services_cookie_is_read_in_no_time(
    gateway: GatewayBench, cookie: bytes
) -> None:
    gateway.upstream.answer = raw(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: %b\r\nContent-Length: 2\r\n\r\nok" % cookie
    )
    response = await gateway.call(b"GET", b"/api/x")
    assert response.body == b"ok"
    assert (response.one(b"set-cookie") or b"").endswith(b"; Path=/api/")


async def test_u12_a_bomb_stays_packed(gateway: GatewayBench) -> None:
    """Megabytes of zeros in kilobytes: the gateway unpacks nothing, and lets nothing by unseen."""
    bomb = gzip.compress(bytes(8 * MIB))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    gateway.upstream.answer = raw(head + bomb)
    refused = await gateway.call(b"GET", b"/api/x", b"Accept-Encoding: gzip")
    assert (refused.status, refused.error) == (502, "response_unsearchable")
    where = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"
    gateway.load(policy_text(f"{where}, scrub: off"))
    passed = await gateway.call(b"GET", b"/api/x", b"Accept-Encoding: gzip")
    assert passed.body == bomb
    assert (await gateway.records())[-1]["bytes_out"] == len(bomb)


@pytest.mark.parametrize("size", [1, 7])
async def test_u12_a_body_in_crumbs(gateway: GatewayBench, size: int) -> None:
    """A million chunks of a byte, each with an extension, cost what they are long."""
    crumbs = b"".join(b"%x;e=%b\r\n%b\r\n" % (size, b"x" * 20, b"y" * size) for _ in range(20_000))
    gateway.upstream.answer = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + crumbs + b"0\r\n\r\n"
    )
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked"))
        await wire.send(crumbs + b"0\r\n\r\n")
        assert (await wire.response()).body == b"y" * size * 20_000
    assert gateway.upstream.last.body == b"y" * size * 20_000


async def drip_head(_: Received, writer: asyncio.StreamWriter) -> None:
    """Begin a head, and never end it."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    with suppress(ConnectionError):
        for _again in range(100):
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)


async def test_u12_a_head_in_drops_from_a_service_buys_no_time(gateway: GatewayBench) -> None:
    where = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"
    gateway.load(policy_text(f"{where}, timeouts: {{first_byte: 300ms}}"))
    gateway.upstream.answer = drip_head
    started = time.monotonic()
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (504, "upstream_timeout")
    assert time.monotonic() - started < 10


async def test_u12_who_neither_sends_nor_takes_is_given_up(tmp_path: Path) -> None:
    limits = GatewayLimits(head_timeout=0.3, body_timeout=0.3, idle_timeout=0.3)
    async with (
        gateway_bench(tmp_path / "audit", limits=limits) as gateway,
        AsyncExitStack() as stack,
    ):
        gateway.upstream.answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        ways = [
            b"",
            gateway.head(b"GET", b"/api/x")[:-2],
            gateway.head(b"POST", b"/api/x", b"Content-Length: 9") + b"abc",
            gateway.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked") + b"3\r\nab",
        ]
        wires = [await stack.enter_async_context(gateway.connect()) for _ in ways]
        for wire, way in zip(wires, ways, strict=True):
            await wire.send(way)
        for wire in wires:
            with suppress(ConnectionError):
                await wire.rest()
        while gateway.server._connections:  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.01)
