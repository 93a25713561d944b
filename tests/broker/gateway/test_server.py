from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from tests.fakes.gateway import gateway_bench

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received


async def test_addresses(gateway: GatewayBench) -> None:
    assert gateway.server.addresses == (("127.0.0.1", gateway.port),)


async def test_several_listeners(gateway: GatewayBench) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    first, gateway.port = gateway.port, listener.getsockname()[1]
    await gateway.server.start(listener)
    assert (await gateway.call(b"GET", b"/api/x")).status == 200
    gateway.port = first
    assert (await gateway.call(b"GET", b"/api/x")).status == 200


async def test_no_service_leads_back_to_the_gateway(gateway: GatewayBench) -> None:
    gateway.upstream.port = gateway.port
    gateway.load_again()
    response = await gateway.call(b"GET", b"/api/api/x")
    assert (response.status, response.error) == (508, "loop_detected")
    assert len(await gateway.records()) == 2


async def test_closing_waits_for_requests_under_way(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(_: Received, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with gateway_bench(tmp_path / "audit") as bench:
        bench.upstream.answer = slow
        async with bench.connect() as idle, bench.connect() as busy:
            await busy.send(bench.head(b"GET", b"/api/x"))
            await bench.upstream.until_requests(1)
            closing = asyncio.ensure_future(bench.server.close(5))
            assert await idle.closed()
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection("127.0.0.1", bench.port)
            assert not closing.done()
            gate.set()
            response = await busy.response()
            assert (response.status, response.one(b"connection")) == (200, b"close")
            busy.writer.close()
            await closing


async def test_closing_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with gateway_bench(tmp_path / "audit") as bench:
        bench.upstream.answer = bench.upstream.silence
        async with bench.connect() as busy:
            await busy.send(bench.head(b"GET", b"/api/x"))
            await bench.upstream.until_requests(1)
            await bench.server.close(0.05)
            assert await busy.closed()
        assert (await bench.records())[-1]["detail"].startswith("client_gone")


async def test_closing_before_starting(tmp_path: Path) -> None:
    async with gateway_bench(tmp_path / "audit") as bench:
        await bench.server.close(0)
        await bench.server.close(0)


async def test_metrics(gateway: GatewayBench) -> None:
    registry = CollectorRegistry()
    registry.register(gateway.metrics)
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await wire.response()
        assert registry.get_sample_value("broker_gateway_connections") == 1
        assert registry.get_sample_value("broker_gateway_upstream_connections") == 1
    labels = {"service": "api", "decision": "allow", "status": "200"}
    assert registry.get_sample_value("broker_gateway_requests_total", labels) == 1


async def test_a_defect_in_a_deadline_does_not_stop_the_clock(
    gateway: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.connect() as wire:
        with monkeypatch.context() as patch:
            patch.setattr("broker.gateway.downstream.AgentConnection.tick", None)
            assert await wire.closed()
    assert gateway.server._ticking is not None
    assert not gateway.server._ticking.done()
