from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from broker.gateway.limits import GatewayLimits
from tests.fakes.gateway import GATEWAY, ISSUER, gateway_bench
from tests.fakes.upstream import Received, reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.gateway import GatewayBench
    from tests.fakes.wire import Wire


async def echo(received: Received, writer: asyncio.StreamWriter) -> None:
    """Answer with the target and the body of the request."""
    body = received.target + b" " + received.body
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def test_a_connection_is_kept(gateway: GatewayBench) -> None:
    gateway.upstream.answer = echo
    async with gateway.connect() as wire:
        for number in range(5):
            await wire.send(gateway.head(b"GET", b"/api/%d" % number))
            assert (await wire.response()).body == b"/%d " % number
    assert gateway.upstream.connections == 1


async def test_a_connection_is_closed_on_demand(gateway: GatewayBench) -> None:
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x", b"Connection: close"))
        assert (await wire.response()).one(b"connection") == b"close"
        assert await wire.closed()


async def test_pipelined_requests_are_answered_in_order(gateway: GatewayBench) -> None:
    gateway.upstream.answer = echo
    requests = b""
    for number in range(20):
        requests += gateway.head(b"GET", b"/api/get%d" % number)
        chunked = b"Transfer-Encoding: chunked"
        requests += gateway.head(b"POST", b"/api/p%d" % number, chunked) + b"2\r\nab\r\n0\r\n\r\n"
        requests += gateway.head(b"PUT", b"/api/u%d" % number, b"Content-Length: 3") + b"xyz"
        requests += gateway.head(b"GET", b"/api/admin/%d" % number)
    async with gateway.connect() as wire:
        await wire.send(requests)
        for number in range(20):
            assert (await wire.response()).body == b"/get%d " % number
            assert (await wire.response()).body == b"/p%d ab" % number
            assert (await wire.response()).body == b"/u%d xyz" % number
            assert (await wire.response()).error == "policy_denied"
    assert len(await gateway.records()) == 20 * 7


async def test_a_pipelined_request_waits_for_the_one_before_it(gateway: GatewayBench) -> None:
    gate = asyncio.Event()

    async def slow(received: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(received, writer)

    gateway.upstream.answer = slow
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/1") + gateway.head(b"POST", b"/api/2"))
        await gateway.upstream.until_requests(1)
        await asyncio.sleep(0.05)
        assert len(gateway.upstream.requests) == 1
        gate.set()
        assert (await wire.response()).body == b"/1 "
        assert (await wire.response()).body == b"/2 "


async def test_what_is_pipelined_waits_in_little_memory(gateway: GatewayBench) -> None:
    gateway.upstream.answer = gateway.upstream.silence
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await gateway.upstream.until_requests(1)
        sent = await wire.send_until_stuck(b"G" * 100_000, 100_000_000)
        assert sent < 20_000_000


@pytest.mark.parametrize("step", [1, 7, 50])
async def test_requests_may_come_in_pieces(gateway: GatewayBench, step: int) -> None:
    gateway.upstream.answer = echo
    data = gateway.head(b"POST", b"/api/x", b"Content-Length: 5") + b"hello"
    data += gateway.head(b"POST", b"/api/y", b"Transfer-Encoding: chunked")
    data += b"5\r\nhello\r\n0\r\n\r\n"
    async with gateway.connect() as wire:
        for start in range(0, len(data), step):
            wire.writer.write(data[start : start + step])
            await asyncio.sleep(0)
        assert (await wire.response()).body == b"/x hello"
        assert (await wire.response()).body == b"/y hello"


async def test_a_refusal_leaves_the_connection_where_nothing_is_open(
    gateway: GatewayBench,
) -> None:
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/admin/x"))
        assert (await wire.response()).status == 403
        await wire.send(gateway.head(b"POST", b"/api/admin/x", b"Content-Length: 3") + b"abc")
        refusal = await wire.response()
        assert (refusal.status, refusal.one(b"connection")) == (403, None)
        await wire.send(gateway.head(b"GET", b"/api/x"))
        assert (await wire.response()).status == 200


@pytest.mark.parametrize("lines", [[b"Content-Length: 300"], [b"Transfer-Encoding: chunked"]])
async def test_a_refusal_with_a_body_to_come_closes(
    gateway: GatewayBench, lines: list[bytes]
) -> None:
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/admin/x", *lines))
        refusal = await wire.response()
        assert (refusal.status, refusal.one(b"connection")) == (403, b"close")
        assert await wire.closed()


async def test_a_refusal_is_not_lost_to_a_reset(gateway: GatewayBench) -> None:
    """An agent that sends on reads the refusal when it is done."""
    size = 5_000_000
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/admin/x", b"Content-Length: %d" % size))
        for _ in range(size // 100_000):
            await wire.send(b"x" * 100_000)
        assert (await wire.response()).error == "policy_denied"


async def test_a_refusal_of_head_has_no_body(gateway: GatewayBench) -> None:
    async with gateway.connect() as wire:
        for _ in range(2):
            await wire.send(gateway.head(b"HEAD", b"/api/admin/x"))
            assert (await wire.response(b"HEAD")).status == 403


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "malformed_request"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505, "version_refused"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method_refused"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, "expectation_failed"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_request_is_answered_recorded_and_closed(
    gateway: GatewayBench, data: bytes, status: int, error: str
) -> None:
    async with gateway.connect() as wire:
        await wire.send(data)
        response = await wire.response()
        assert (response.status, response.error) == (status, error)
        assert response.one(b"connection") == b"close"
        assert await wire.closed()
    (record,) = await gateway.records()
    assert (record["decision"], record["status"]) == ("deny", status)
    assert record["source_address"] == "127.0.0.1"


async def test_what_follows_a_malformed_request_is_not_read(gateway: GatewayBench) -> None:
    bad = b"GET /api/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    answer = await gateway.talk(bad + gateway.head(b"POST", b"/api/x"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not gateway.upstream.requests


async def test_nobody_without_a_token(gateway: GatewayBench) -> None:
    response = await gateway.call(b"GET", b"/api/x", token=b"")
    assert (response.status, response.error) == (401, "token_missing")
    metadata = f'resource_metadata="{GATEWAY}/.well-known/oauth-protected-resource"'
    assert response.one(b"www-authenticate") == f"Bearer {metadata}".encode()
    response = await gateway.call(b"GET", b"/api/x", token=b"eyJ.x.y")
    assert (response.status, response.error) == (401, "token_invalid")


async def test_metadata_of_the_resource(gateway: GatewayBench) -> None:
    target = b"/.well-known/oauth-protected-resource"
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"HEAD", target, token=b""))
        assert (await wire.response(b"HEAD")).status == 200
        await wire.send(gateway.head(b"GET", target, token=b""))
        response = await wire.response()
        assert json.loads(response.body)["resource"] == GATEWAY
        assert json.loads(response.body)["authorization_servers"] == [ISSUER]
        await wire.send(gateway.head(b"POST", target, token=b""))
        assert (await wire.response()).status == 401


async def test_an_agent_that_half_closes_is_gone(gateway: GatewayBench) -> None:
    gateway.upstream.answer = gateway.upstream.silence
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await gateway.upstream.until_requests(1)
        wire.writer.write_eof()
        assert await wire.closed()
    assert (await gateway.records())[-1]["detail"].startswith("client_gone")


async def test_connections_are_bounded(tmp_path: Path) -> None:
    limits = GatewayLimits(connections=3)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, AsyncExitStack() as stack:
        bench.upstream.answer = bench.upstream.silence
        wires = [await stack.enter_async_context(bench.connect()) for _ in range(3)]
        for number, wire in enumerate(wires):
            await wire.send(bench.head(b"GET", b"/api/x"))
            await bench.upstream.until_requests(number + 1)
        async with bench.connect() as one_too_many:
            assert (await one_too_many.response()).error == "overloaded"
            assert await one_too_many.closed()
        bench.upstream.answer = reply()
        wires[0].writer.close()
        while len(bench.server._connections) == 3:  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.002)
        assert (await bench.call(b"GET", b"/api/x")).status == 200


async def test_who_does_nothing_makes_way(tmp_path: Path) -> None:
    limits = GatewayLimits(connections=3)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(bench.connect()) for _ in range(3)]
        served, beginning, idle = wires
        await served.send(bench.head(b"GET", b"/api/x"))
        assert (await served.response()).status == 200
        await beginning.send(b"GET /api/x HTTP/1.1\r\nHost: a")
        while any(one._deadline is None for one in bench.server._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the gateway's clock has to tick for it to know
        # Who has never asked for anything goes first, then who is slow to ask, then who is idle.
        for loser in (idle, beginning, served):
            wire = await stack.enter_async_context(bench.connect())
            await wire.send(bench.head(b"GET", b"/api/x"))
            assert (await wire.response()).status == 200
            with suppress(ConnectionError):
                assert await loser.closed()


async def test_a_flood_of_requests_leaves_others_their_turn(gateway: GatewayBench) -> None:
    """Thousands fit into what is read at once; each costs a judgement and a record."""
    flood = b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n" * 4000
    async with gateway.connect() as noisy, gateway.connect() as quiet:
        await noisy.send(flood)
        answered = 0
        for _ in range(20):
            await quiet.send(gateway.head(b"GET", b"/api/x", token=b""))
            assert (await quiet.response()).error == "token_missing"
        while answered < 4000:
            assert (await noisy.response()).error == "token_missing"
            answered += 1
    assert len(await gateway.records()) == 4020


@pytest.mark.parametrize(
    ("limits", "data", "error"),
    [
        (GatewayLimits(idle_timeout=0.2), b"", None),
        (GatewayLimits(head_timeout=0.2), b"GET /api/x HTTP/1.1\r\nHost:", "request_timeout"),
    ],
    ids=["idle", "head"],
)
async def test_who_sends_nothing_is_not_waited_for(
    tmp_path: Path, limits: GatewayLimits, data: bytes, error: str | None
) -> None:
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, bench.connect() as wire:
        await wire.send(data)
        if error is not None:
            assert (await wire.response()).error == error
        assert await wire.closed()


async def test_a_head_in_drops_does_not_buy_time(tmp_path: Path) -> None:
    limits = GatewayLimits(head_timeout=0.4)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, bench.connect() as wire:
        await wire.send(b"GET /api/x HTTP/1.1\r\n")
        reading = asyncio.ensure_future(wire.response())
        for _ in range(50):
            if reading.done():
                break
            await wire.send(b"X: y\r\n")
            await asyncio.sleep(0.05)
        assert (await reading).error == "request_timeout"


async def test_a_body_that_stops_is_not_waited_for(tmp_path: Path) -> None:
    limits = GatewayLimits(body_timeout=0.2)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, bench.connect() as wire:
        await wire.send(bench.head(b"POST", b"/api/x", b"Content-Length: 9") + b"abc")
        assert (await wire.response()).error == "request_timeout"
        assert await wire.closed()
        await bench.upstream.until_aborted()


async def test_an_agent_that_takes_nothing_is_not_waited_for(tmp_path: Path) -> None:
    limits = GatewayLimits(body_timeout=0.2)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, bench.connect() as wire:
        bench.upstream.answer = reply(b"x" * 50_000_000)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(bench.head(b"GET", b"/api/x"))
        await bench.upstream.until_aborted()
        outcome = (await bench.records())[-1]
        assert "too slowly" in outcome["detail"]


async def test_who_does_not_hang_up_is_hung_up_on(tmp_path: Path) -> None:
    limits = GatewayLimits(linger=0.2)
    async with gateway_bench(tmp_path / "audit", limits=limits) as bench, bench.connect() as wire:
        await wire.send(bench.head(b"GET", b"/api/x", b"Connection: close"))
        await wire.response()
        assert await wire.closed()
        with pytest.raises(ConnectionError):
            await keep_sending(wire)


async def keep_sending(wire: Wire) -> None:
    for _ in range(100):
        await wire.send(b"x" * 1000)
        await asyncio.sleep(0.02)


async def test_a_defect_costs_one_connection(
    gateway: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("broker.gateway.authorize.Authorization.decide", None)
        async with gateway.connect() as wire:
            await wire.send(gateway.head(b"GET", b"/api/x"))
            assert (await wire.response()).error == "internal_error"
            assert await wire.closed()
    assert (await gateway.call(b"GET", b"/api/x")).status == 200


async def test_a_refusal_that_cannot_be_recorded_is_not_explained(
    gateway: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.gateway.record.Recorder.reject", lambda *_: False)
    response = await gateway.call(b"GET", b"/api/admin/x")
    assert (response.status, response.error) == (503, "audit_unavailable")


@pytest.mark.parametrize("who", ["agent", "service", "both"])
async def test_a_close_in_the_midst_of_a_pipeline_ends_it(gateway: GatewayBench, who: str) -> None:
    """What was sent behind the last request is not looked at; a service's close is its own."""
    lines = (b"Connection: close",) if who != "service" else ()
    if who != "agent":
        gateway.upstream.answer = reply(b"ok", "200 OK", b"Connection: close")
    requests = gateway.head(b"GET", b"/api/1")
    requests += gateway.head(b"GET", b"/api/2", *lines)
    requests += gateway.head(b"POST", b"/api/3")
    async with gateway.connect() as wire:
        await wire.send(requests)
        for number in (1, 2) if lines else (1, 2, 3):
            response = await wire.response()
            assert response.status == 200
            assert response.one(b"connection") == (b"close" if lines and number == 2 else None)
        if lines:
            assert await wire.closed()
    assert len(gateway.upstream.requests) == (2 if lines else 3)


async def test_a_refusal_in_the_midst_of_a_pipeline_leaves_the_rest(gateway: GatewayBench) -> None:
    requests = gateway.head(b"GET", b"/api/1") + gateway.head(b"GET", b"/api/admin/2")
    requests += gateway.head(b"POST", b"/api/admin/3", b"Content-Length: 3") + b"abc"
    requests += gateway.head(b"HEAD", b"/api/4") + gateway.head(b"GET", b"/api/5")
    gateway.upstream.answer = echo
    async with gateway.connect() as wire:
        await wire.send(requests)
        assert (await wire.response()).body == b"/1 "
        assert (await wire.response()).error == "policy_denied"
        assert (await wire.response()).error == "policy_denied"
        assert (await wire.response(b"HEAD")).status == 200
        assert (await wire.response()).status == 200
    assert [one.target for one in gateway.upstream.requests] == [b"/1", b"/4", b"/5"]
