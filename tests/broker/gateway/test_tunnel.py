from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from broker.gateway.limits import GatewayLimits
from tests.fakes.gateway import KEY, gateway_bench, socket_policy
from tests.fakes.switching import agree, handshake
from tests.fakes.trail import SlowTrail
from tests.fakes.wire import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.server import ServerConnection

    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

    Handler = Callable[[ServerConnection], Awaitable[None]]

WHERE = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"


async def echo(socket: ServerConnection) -> None:
    """Say back whatever comes."""
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def service(
    gateway: GatewayBench, handler: Handler = echo, fields: str = WHERE, **options: Any
) -> AsyncIterator[None]:
    """Put a real websocket server behind the gateway."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        gateway.upstream.port = server.sockets[0].getsockname()[1]
        gateway.load(socket_policy(fields))
        yield


def websocket(gateway: GatewayBench, token: bytes | None = None, **options: Any) -> connect:
    """A real websocket client before it."""
    token = token or gateway.token()
    return connect(
        f"ws://127.0.0.1:{gateway.port}/api/realtime?model=x",
        additional_headers={"Authorization": f"Bearer {token.decode()}"},
        proxy=None,
        **options,
    )


async def last_outcome(gateway: GatewayBench) -> dict[str, Any]:
    return (await gateway.records())[-1]


async def test_messages_go_both_ways(gateway: GatewayBench) -> None:
    seen: list[Any] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request)
        await echo(socket)

    protocols = [Subprotocol("chat"), Subprotocol("other")]
    async with service(gateway, handler, subprotocols=protocols[:1], ping_interval=0.05):
        async with websocket(gateway, subprotocols=protocols, ping_interval=0.05) as socket:
            assert socket.subprotocol == "chat"
            for message in ("hello", b"\x00\xff" * 1000, "", "ü" * 70_000, os.urandom(300_000)):
                await socket.send(message)
                assert await socket.recv() == message
            await asyncio.sleep(0.2)  # pings of both sides
            await socket.send("still there")
            assert await socket.recv() == "still there"
        assert (socket.close_code, socket.close_reason) == (1000, "")
    (request,) = seen
    assert request.path == "/realtime?model=x"
    assert request.headers.get_all("authorization") == [f"Bearer {KEY}"]
    intent, outcome = await gateway.records()
    assert (intent["phase"], intent["decision"], intent["risk"]) == ("intent", "allow", "medium")
    assert (outcome["decision"], outcome["status"]) == ("allow", 101)
    assert outcome["bytes_in"] > 440_000
    assert outcome["bytes_out"] > 440_000


async def test_no_extension_is_agreed_on_where_messages_are_searched(
    gateway: GatewayBench,
) -> None:
    async with service(gateway), websocket(gateway, compression="deflate") as socket:
        assert socket.protocol.extensions == []
        await socket.send("a" * 1000)
        assert await socket.recv() == "a" * 1000


async def test_without_scrubbing_extensions_are_the_ends_own_affair(gateway: GatewayBench) -> None:
    fields = f"{WHERE}, scrub: off"
    async with (
        service(gateway, fields=fields, compression="deflate"),
        websocket(gateway, compression="deflate") as socket,
    ):
        assert [one.name for one in socket.protocol.extensions] == ["permessage-deflate"]
        await socket.send(KEY * 1000)
        assert await socket.recv() == KEY * 1000
    assert (await last_outcome(gateway))["bytes_out"] < 2000


@pytest.mark.parametrize("fragmented", [False, True])
async def test_a_key_in_a_message_is_overwritten(
    gateway: GatewayBench, *, fragmented: bool
) -> None:
    async def tell(socket: ServerConnection) -> None:
        assert socket.request is not None
        told = f"you sent {socket.request.headers['authorization']} and {KEY}!"
        await socket.send([told[:20], told[20:25], told[25:]] if fragmented else told)
        await echo(socket)

    async with service(gateway, tell), websocket(gateway) as socket:
        assert await socket.recv() == f"you sent Bearer {'*' * len(KEY)} and {'*' * len(KEY)}!"
        await socket.send(KEY[:5])  # what a secret begins with is a message like any other
        assert await socket.recv() == KEY[:5]
    outcome = await last_outcome(gateway)
    assert outcome["detail"] == "credential echoed, scrubbed"


async def test_a_service_that_does_not_want_to_says_so_itself(gateway: GatewayBench) -> None:
    async with serve(
        echo, "127.0.0.1", 0, process_request=lambda socket, _: socket.respond(403, "not you\n")
    ) as server:
        gateway.upstream.port = server.sockets[0].getsockname()[1]
        gateway.load(socket_policy())
        with pytest.raises(InvalidStatus) as refusal:
            async with websocket(gateway):
                pass
    response = refusal.value.response
    assert (response.status_code, response.body) == (403, b"not you\n")
    assert "broker-error" not in response.headers
    outcome = await last_outcome(gateway)
    assert (outcome["decision"], outcome["status"]) == ("allow", 403)


async def test_a_scope_that_does_not_say_so_opens_nothing(gateway: GatewayBench) -> None:
    async with service(gateway):
        gateway.load_again()
        with pytest.raises(InvalidStatus) as refusal:
            async with websocket(gateway):
                pass
    assert refusal.value.response.headers["broker-error"] == "upgrade_refused"
    assert (await last_outcome(gateway))["decision"] == "deny"


async def test_nothing_is_sent_before_its_record_is_durable(tmp_path: Path) -> None:
    trail = SlowTrail()
    trail.prompt = True
    async with gateway_bench(tmp_path, trail=trail) as gateway:
        token = gateway.token()
        gateway.load(socket_policy())
        assert (await gateway.call(b"GET", b"/api/warm", token=token)).status == 200
        trail.prompt = False
        gateway.upstream.requests.clear()
        async with gateway.connect() as wire:
            await wire.send(handshake(gateway, token=token))
            await asyncio.sleep(0.1)
            assert not gateway.upstream.requests
            trail.settle()
            await gateway.upstream.until_requests(1)


async def cut_short(socket: ClientConnection) -> None:
    """Read until the connection breaks off, without a closing handshake."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code == 1006


async def test_an_expired_grant_ends_its_websocket(gateway: GatewayBench) -> None:
    async def ticks(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await socket.send("tick")
                await asyncio.sleep(0.01)

    async with service(gateway, ticks), websocket(gateway, gateway.token(lifetime=4)) as socket:
        assert await socket.recv() == "tick"
        await cut_short(socket)
    outcome = await last_outcome(gateway)
    assert (outcome["decision"], outcome["status"]) == ("error", 101)
    assert outcome["detail"] == "token_invalid: expired"


async def test_a_websocket_in_which_nothing_moves_is_closed(gateway: GatewayBench) -> None:
    fields = f"{WHERE}, timeouts: {{idle: 3s}}"
    async with (
        service(gateway, fields=fields, ping_interval=None),
        websocket(gateway, ping_interval=None) as socket,
    ):
        for _ in range(9):  # longer than the time-out, but for something every now and then
            await socket.send("x")
            assert await socket.recv() == "x"
            await asyncio.sleep(0.5)
        await cut_short(socket)
    assert (await last_outcome(gateway))["detail"].startswith("upstream_timeout")


@pytest.mark.parametrize("who", ["agent", "service"])
async def test_a_slow_side_makes_the_other_wait(tmp_path: Path, who: str) -> None:
    """What one side sends waits in little memory while the other takes nothing."""
    limits = GatewayLimits(body_timeout=1.0)
    sent = 0

    async def flood(received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await agree(received, writer)
        with suppress(ConnectionError):
            while who == "agent" and sent < 100_000_000:
                writer.write(b"\x82\x7f" + (1 << 16).to_bytes(8, "big") + bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16
        if who == "service":
            await gateway.upstream.stopped.wait()  # and read nothing

    async with gateway_bench(tmp_path / "audit", limits=limits) as gateway:
        gateway.load(socket_policy())
        gateway.upstream.answer = flood
        async with gateway.connect() as wire:
            await wire.send(handshake(gateway))
            assert (await wire.head()).status == 101
            if who == "service":
                sent = await wire.send_until_stuck(b"\x82\xff" + bytes(65_534), 100_000_000)
            else:
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.sleep(0.5)
            assert 0 < sent < 40_000_000
            # Neither is waited for longer than for any other body.
            with suppress(ConnectionError):
                await gateway.upstream.until_aborted() if who == "agent" else await wire.rest()
        outcome = await last_outcome(gateway)
        assert (outcome["decision"], outcome["status"]) == ("error", 101)


@pytest.mark.parametrize("polite", [True, False])
async def test_what_the_agent_sent_last_arrives(gateway: GatewayBench, *, polite: bool) -> None:
    received = bytearray()
    ended = asyncio.Event()

    async def listen(asked: Received, writer: asyncio.StreamWriter) -> None:
        await agree(asked, writer)
        reader = writer.transport.get_protocol()._stream_reader  # type: ignore[attr-defined]
        while data := await reader.read(1 << 16):
            received.extend(data)
        ended.set()

    gateway.load(socket_policy())
    gateway.upstream.answer = listen
    last = b"\x82\xfe\x40\x00mask" + bytes(1 << 14)
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway))
        assert (await wire.head()).status == 101
        await wire.send(last)
        if polite:
            wire.writer.write_eof()
        else:
            wire.writer.close()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
    assert received == last
    outcome = await last_outcome(gateway)
    assert (outcome["decision"], outcome["status"]) == ("allow", 101)
    assert (outcome["bytes_in"], outcome["bytes_out"]) == (len(last), 0)


async def test_frames_right_behind_the_answer_are_not_lost(gateway: GatewayBench) -> None:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        await agree(received, writer)
        writer.write(b"\x81\x02hi")
        writer.close()

    async def at_once(received: Received, writer: asyncio.StreamWriter) -> None:
        pieces: list[bytes] = []
        await agree(received, _Collected(pieces))  # type: ignore[arg-type]
        writer.write(b"".join([*pieces, b"\x81\x02hi"]))
        writer.close()

    gateway.load(socket_policy())
    for way in (answer, at_once):
        gateway.upstream.answer = way
        async with gateway.connect() as wire:
            await wire.send(handshake(gateway))
            head = await wire.head()
            assert head.status == 101
            assert (head.one(b"connection"), head.one(b"upgrade")) == (b"Upgrade", b"websocket")
            assert await wire.rest() == b"\x81\x02hi"
    assert [one["status"] for one in await gateway.records() if one["phase"] == "outcome"] == [
        101,
        101,
    ]


class _Collected:
    def __init__(self, pieces: list[bytes]) -> None:
        self.write = pieces.append

    async def drain(self) -> None:
        pass
