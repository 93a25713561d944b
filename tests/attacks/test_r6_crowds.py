"""R6: idle crowds, a noisy tenant, no descriptors left: others are not affected.

A full disk is in tests/attacks/test_a.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.gateway.limits import GatewayLimits
from tests.components.process import serving
from tests.fakes.gateway import ALL, gateway_bench, policy_text
from tests.fakes.upstream import reply
from tests.integration.running_broker import COMMAND, BrokerHome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOISY = "noisy"


def with_another_agent() -> str:
    """The usual policy, and one agent more with the same rights."""
    return (
        policy_text()
        + f"""
  {NOISY}:
    trust: [{{source: laptop, claims: {{sub: {NOISY}}}}}]
    scopes: [{", ".join(ALL)}]
"""
    )


@pytest.mark.parametrize("said", [b"", b"GET /api/x HTTP/1.1\r\nHost: "], ids=["idle", "slow"])
async def test_r6_a_crowd_that_does_nothing_keeps_nobody_out(tmp_path: Path, said: bytes) -> None:
    limits = GatewayLimits(connections=64)
    async with (
        gateway_bench(tmp_path / "audit", limits=limits) as gateway,
        AsyncExitStack() as stack,
    ):
        token = gateway.token()
        kept = await stack.enter_async_context(gateway.connect())
        for number in range(300):
            wire = await stack.enter_async_context(gateway.connect())
            with suppress(ConnectionError):  # it may have made way already
                await wire.send(said)
            if number % 20 == 0:
                # Who was there before stays, and who comes now gets in.
                await kept.send(gateway.head(b"GET", b"/api/x", token=token))
                assert (await kept.response()).status == 200
                assert (await gateway.call(b"GET", b"/api/x", token=token)).status == 200
        assert len(gateway.server._connections) <= 64


async def test_r6_a_noisy_tenant_leaves_others_their_turn(tmp_path: Path) -> None:
    """It holds as many connections to the service as it can, and asks for more."""
    limits = GatewayLimits(upstream_connections=8, upstream_waiting=16)
    async with (
        gateway_bench(tmp_path / "audit", limits=limits) as gateway,
        AsyncExitStack() as stack,
    ):
        gateway.load(with_another_agent())
        noisy, quiet = gateway.token(agent=NOISY), gateway.token()
        gateway.upstream.answer = gateway.upstream.silence
        for _ in range(30):
            wire = await stack.enter_async_context(gateway.connect())
            await wire.send(gateway.head(b"GET", b"/api/slow", token=noisy))
        await gateway.upstream.until_requests(6)
        await asyncio.sleep(0.05)
        assert len(gateway.upstream.requests) == 6

        gateway.upstream.answer = reply()  # to whatever comes from now on
        for _ in range(20):
            response = await gateway.call(b"GET", b"/api/fast", token=quiet)
            assert response.status == 200
        refused = await gateway.call(b"GET", b"/api/fast", token=noisy)
        assert (refused.status, refused.error) == (503, "overloaded")


@contextmanager
def crowd(port: int, size: int) -> Iterator[None]:
    """Open connections to a port of this machine, say nothing, and keep them."""
    with ExitStack() as stack:
        for _ in range(size):
            one = stack.enter_context(socket.socket())
            one.settimeout(5)
            one.connect(("127.0.0.1", port))
        yield


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is of Linux")
def test_r6_without_descriptors_the_broker_goes_on(tmp_path: Path) -> None:
    """There are 400 for it, and 600 connections: it accepts, refuses, records and rotates."""
    home = BrokerHome.create(tmp_path / "home", audit_rotate_size="64KiB")
    ports = [int(home.environment[f"BROKER_{name}_PORT"]) for name in ("CONTROL", "GATEWAY")]
    with httpx.Client(trust_env=False, timeout=20) as client:

        def ready() -> bool:
            with suppress(httpx.TransportError):
                return client.get(f"{home.control_url}/readyz").is_success
            return False

        command = ["prlimit", "--nofile=400:400", COMMAND, "serve"]
        with (
            serving(command, ready, directory=tmp_path, environment=home.environment),
            crowd(ports[0], 300),
            crowd(ports[1], 300),
        ):
            for number in range(200):
                # Each on a connection of its own, but for the last half.
                with httpx.Client(trust_env=False, timeout=20) as newcomer:
                    caller = newcomer if number < 100 else client
                    refused = caller.get(f"{home.gateway_url}/x/y")
                    assert refused.status_code == httpx.codes.UNAUTHORIZED
                    assert refused.headers["broker-error"] == "token_missing"
                    if number % 10 == 0:
                        assert caller.get(f"{home.control_url}/readyz").is_success
    warnings = (tmp_path / "output.log").read_text()
    assert "file descriptors" in warnings
    assert "Too many open files" not in warnings
    lines = home.run("logs", "--json", "--limit", "0").splitlines()
    assert sum(json.loads(line).get("status") == httpx.codes.UNAUTHORIZED for line in lines) == 200
    assert len(list((tmp_path / "home" / "data" / "audit").glob("*.jsonl"))) > 1
    home.run("audit", "verify")
