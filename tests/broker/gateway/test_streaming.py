"""Bodies that do not fit into memory, and events that must not wait."""

from __future__ import annotations

import asyncio
import socket
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gateway import gateway_bench, policy_text
from tests.fakes.upstream import Received, recording_upstream, reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.tls import TestAuthority
    from tests.fakes.gateway import GatewayBench

MIB = 1 << 20
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Fail if more than 24 MiB are allocated at any time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
async def test_a_long_download_takes_little_memory(gateway: GatewayBench, framing: str) -> None:
    size, block = 100 * MIB, b"x" * 65536
    head = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size,
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n",
    }[framing]

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        part = b"%x\r\n%b\r\n" % (len(block), block) if framing == "chunks" else block
        for _block in range(size // len(block)):
            writer.write(part)
            await writer.drain()
        if framing == "chunks":
            writer.write(b"0\r\n\r\n")
        if framing == "close":
            writer.close()

    gateway.upstream.answer = answer
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        assert (await wire.head()).status == 200
        received = 0
        if framing == "length":
            while received < size:
                received += len(await wire.reader.read(65536))
        else:
            while piece := await wire.chunk():
                received += len(piece)
        assert received == size
    assert (await gateway.records())[-1]["bytes_out"] == size


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_long_upload_takes_little_memory(gateway: GatewayBench, chunked: bool) -> None:  # noqa: FBT001
    size, block = 100 * MIB, b"x" * 65536
    taken = 0

    async def count(received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        reader: asyncio.StreamReader = writer._reader  # type: ignore[attr-defined]
        while taken < size:
            if chunked:
                part = int(await reader.readuntil(b"\r\n"), 16)
                await reader.readexactly(part + 2)
                taken += part
            else:
                taken += len(await reader.read(65536))
        if chunked:
            assert await reader.readexactly(5) == b"0\r\n\r\n"
        await reply(b"got it")(received, writer)
        await gateway.upstream.silence(received, writer)

    gateway.upstream.on_head = count
    line = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", line))
        for _ in range(size // len(block)):
            await wire.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        if chunked:
            await wire.send(b"0\r\n\r\n")
        assert (await wire.response()).body == b"got it"
    assert taken == size


async def test_an_upstream_waits_for_a_slow_agent(gateway: GatewayBench) -> None:
    sent = 0

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        for _ in range(200):
            writer.write(b"x" * MIB)
            sent += MIB
            await writer.drain()
        await gateway.upstream.silence(received, writer)

    gateway.upstream.answer = answer
    async with gateway.connect() as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(gateway.head(b"GET", b"/api/x"))
        stalled = -1
        async with asyncio.timeout(20):
            while not sent or sent != stalled:
                stalled = sent
                await asyncio.sleep(0.3)
        assert stalled < 50 * MIB
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await wire.head()
        async with asyncio.timeout(20):
            while sent < 200 * MIB:
                assert await wire.reader.read(MIB)


async def test_an_agent_waits_for_a_slow_upstream(gateway: GatewayBench) -> None:
    gate = asyncio.Event()

    async def hold(*_: object) -> None:
        await gate.wait()

    gateway.upstream.on_head = hold
    size = 60 * MIB
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Content-Length: %d" % size))
        sent = await wire.send_until_stuck(b"x" * MIB, size)
        assert sent < 40 * MIB
        gate.set()
        await wire.send(b"x" * (size - sent))
        assert (await wire.response()).status == 200
    assert len(gateway.upstream.last.body) == size


async def test_events_arrive_as_they_are_sent(gateway: GatewayBench) -> None:
    turn: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        while event := await turn.get():
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    gateway.upstream.answer = answer
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/events"))
        response = await wire.head()
        assert response.one(b"content-type") == b"text/event-stream"
        for number in range(50):
            event = b"data: %d\n\n" % number
            turn.put_nowait(event)
            assert await wire.chunk() == event
        turn.put_nowait(b"")
        assert await wire.chunk() == b""


async def test_ten_thousand_events(gateway: GatewayBench) -> None:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        for number in range(10_000):
            event = b"id: %d\ndata: {}\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            if number % 100 == 0:
                await writer.drain()
        writer.write(b"0\r\n\r\n")

    gateway.upstream.answer = answer
    response = await gateway.call(b"GET", b"/api/events")
    events = response.body.split(b"\n\n")[:-1]
    assert events == [b"id: %d\ndata: {}" % number for number in range(10_000)]


async def test_an_agent_that_leaves_a_stream_ends_it(gateway: GatewayBench) -> None:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        while True:
            writer.write(b"4\r\n:\n\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)

    gateway.upstream.answer = answer
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/events"))
        await wire.head()
        await wire.chunk()
    await gateway.upstream.until_aborted()


async def test_both_directions_at_once(gateway: GatewayBench) -> None:
    """A response that begins before the request has ended goes on as long as it comes."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS + b"5\r\nfirst\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
        await gateway.upstream.silence(received, writer)

    gateway.upstream.on_head = answer
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Content-Length: 100000"))
        await wire.head()
        assert await wire.chunk() == b"first"
        await wire.send(b"x" * 50)
        assert await wire.chunk() == b"second"


_SEGMENTS_RECEIVED = slice(140, 144)
"""Where Linux's `struct tcp_info` has `tcpi_segs_in`."""


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is read as Linux has it")
async def test_not_each_event_of_a_stream_is_acknowledged_by_itself(gateway: GatewayBench) -> None:
    acknowledgements = []

    def received(connection: socket.socket) -> int:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS_RECEIVED.stop)
        return int.from_bytes(told[_SEGMENTS_RECEIVED], sys.byteorder)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        # Not used again: a connection on which both sides have sent acknowledges less anyway.
        writer.write(EVENTS.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        before = received(connection)
        for _event in range(60):
            writer.write(b"9\r\ndata: x\n\n\r\n")
            await asyncio.sleep(0.002)
        acknowledgements.append(received(connection) - before)
        writer.write(b"0\r\n\r\n")

    gateway.upstream.answer = answer
    for _try in range(10):  # one pause of 40 ms, and the kernel acknowledges each again
        assert (await gateway.call(b"GET", b"/api/x")).body == b"data: x\n\n" * 60
        if acknowledgements[-1] < 50:
            break
    assert min(acknowledgements) < 50


async def test_a_stream_over_tls_comes_piece_by_piece(
    tmp_path: Path, tls_authority: TestAuthority
) -> None:
    context = tls_authority.certificate("localhost").context()
    passed = asyncio.Semaphore(0)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        for _event in range(20):
            writer.write(b"9\r\ndata: x\n\n\r\n")
            await passed.acquire()
        writer.write(b"0\r\n\r\n")

    async with gateway_bench(tmp_path / "audit") as bench, recording_upstream(context) as secure:
        secure.answer = answer
        bench.upstream.port = secure.port
        where = "base_url: https://localhost:PORT, allow_private: true"
        bench.load(policy_text(f"{where}, ca_file: {tls_authority.ca_file}"))
        async with bench.connect() as wire:
            await wire.send(bench.head(b"GET", b"/api/x"))
            assert (await wire.head()).status == 200
            for _event in range(20):
                assert await wire.chunk() == b"data: x\n\n"
                passed.release()
            assert await wire.chunk() == b""
