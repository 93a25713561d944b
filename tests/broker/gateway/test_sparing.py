from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.gateway.limits import GatewayLimits
from broker.gateway.sparing import Room, Sparing
from tests.fakes.gateway import gateway_bench, policy_text
from tests.fakes.upstream import recording_upstream, reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.components.tls import TestAuthority


def test_room_is_shared() -> None:
    room = Room(1 << 20)
    assert len(room.view) == 64 << 10
    for _ in range(64):
        room.enter()
    assert len(room.view) == 16 << 10
    for _ in range(10_000):
        room.enter()
    assert len(room.view) == 4 << 10  # less would cost more than it saves
    for _ in range(10_063):
        room.leave()
    assert len(room.view) == 64 << 10


class Said(asyncio.Protocol):
    """Keeps what happened to it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, object)
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        return None

    def pause_writing(self) -> None:
        self.events.append("full")

    def resume_writing(self) -> None:
        self.events.append("ready")

    def connection_lost(self, error: Exception | None) -> None:
        assert error is None
        self.events.append("lost")
        self.over.set()


async def test_reads_in_pieces_and_passes_everything_on() -> None:
    said, room = Said(), Room(8 << 10)
    room.enter()
    server = await asyncio.get_running_loop().create_server(
        lambda: Sparing(said, room), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(bytes(range(256)) * 4000)
    writer.write_eof()
    async with asyncio.timeout(5):
        await said.over.wait()
    assert b"".join(said.pieces) == bytes(range(256)) * 4000
    assert max(map(len, said.pieces)) <= 4 << 10
    assert (said.events[0], said.events[-2:]) == ("made", ["eof", "lost"])
    assert await reader.read() == b""
    assert len(room.view) == 8 << 10
    writer.close()
    server.close()


async def test_says_at_once_that_the_other_side_is_slow() -> None:
    said = Said()
    loop = asyncio.get_running_loop()
    transports: list[asyncio.Transport] = []

    class Full(Said):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)  # type: ignore[arg-type]

    said = Full()
    server = await loop.create_server(lambda: Sparing(said, Room(1)), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(5):
        while not transports:  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.001)
        while "full" not in said.events:
            transports[0].write(bytes(100_000))
            await asyncio.sleep(0)
        while "ready" not in said.events:
            await reader.read(1 << 20)
    transports[0].abort()
    writer.close()
    server.close()


async def test_a_crowd_is_served_like_a_few(tmp_path: Path, tls_authority: TestAuthority) -> None:
    context = tls_authority.certificate("localhost").context()
    limits = GatewayLimits(roomy_connections=1, crowd_bytes=1)
    body = bytes(range(256)) * 2000
    async with (
        gateway_bench(tmp_path / "audit", limits=limits) as bench,
        bench.connect(),
        recording_upstream(context) as secure,
    ):
        where = "base_url: https://localhost:PORT, allow_private: true"
        for upstream, policy in (
            (bench.upstream, policy_text()),
            (secure, policy_text(f"{where}, ca_file: {tls_authority.ca_file}")),
        ):
            bench.upstream.port = upstream.port
            upstream.answer = reply(body)
            bench.load(policy)
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(bench.call(b"POST", b"/api/x", body=body)) for _ in range(8)
                ]
            assert [call.result().body == body for call in calls] == [True] * 8
            assert [one.body == body for one in upstream.requests] == [True] * 8
