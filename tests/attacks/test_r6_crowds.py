"""R6: idle crowds, a noisy tenant, no descriptors left: others are not affected.

A full disk is in tests/attacks/test_a.py.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.files import create_private
from broker.gateway.limits import GatewayLimits
from tests.components.process import serving
from tests.fakes.gateway import ALL, gateway_bench, policy_text
from tests.fakes.upstream import reply
from tests.fakes.vendor_api import vendor_api
from tests.integration.running_broker import COMMAND, BrokerHome, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.tls import TestAuthority

KEY = "a_key_that_no_agent_may_see"
NOISY = "noisy"
POLICY = """
services:
  api:
    provider: http_api
    base_url: {vendor}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, secret: "file:{home}/api.key"}}
scopes:
  api.read: {{service: api, allow: ["GET /v1/charges"]}}
agents:
  kept:
    trust: [{{source: local, claims: {{sub: kept}}}}]
    scopes: [api.read]
"""


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


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [(b"POST", b"/api/judged", 200), (b"GET", b"/api/v1/x", 403)],
    ids=["body judged", "refused"],
)
async def test_r6_a_slow_crowd_pushes_out_nobody_who_was_served(
    tmp_path: Path, method: bytes, target: bytes, status: int
) -> None:
    """Whatever the last request of that connection was."""
    text = policy_text().replace(
        "  api.read: {service: api, ",
        '  api.post: {service: api, allow: ["POST /judged"], body: {json: {"*": {any: true}}}}\n'
        "  api.read: {service: api, ",
    )
    text = text.replace("api.read]", "api.read, api.post]")
    async with (
        gateway_bench(
            tmp_path / "audit", text=text, limits=GatewayLimits(connections=64)
        ) as gateway,
        AsyncExitStack() as stack,
    ):
        token = gateway.token("api.post")
        json_body = (b"Content-Type: application/json", b"Content-Length: 2")
        kept = await stack.enter_async_context(gateway.connect())
        await kept.send(gateway.head(b"POST", b"/api/judged", *json_body, token=token) + b"{}")
        assert (await kept.response()).status == 200
        lines, body = (json_body, b"{}") if method == b"POST" else ((), b"")
        await kept.send(gateway.head(method, target, *lines, token=token) + body)
        assert (await kept.response()).status == status
        for _ in range(80):
            wire = await stack.enter_async_context(gateway.connect())
            with suppress(ConnectionError):  # it may have made way already
                await wire.send(b"GET /api/x HTTP/1.1\r\nHost: ")
                await asyncio.sleep(0.001)
        await kept.send(gateway.head(b"POST", b"/api/judged", *json_body, token=token) + b"{}")
        assert (await kept.response()).status == 200


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
async def test_r6_a_noisy_tenant_leaves_others_room_for_bodies_that_are_read_whole(
    tmp_path: Path,
) -> None:
    """It begins as many bodies as it can, and ends none."""
    text = with_another_agent().replace(
        'api.all: {service: api, allow: ["* /**"]',
        'api.all: {service: api, allow: ["* /**"], body: {json: {"*": {any: true}}}',
    )
    limits = GatewayLimits(whole_bodies_bytes=1000)
    lines = (b"Content-Type: application/json", b"Content-Length: 201")
    async with (
        gateway_bench(tmp_path / "audit", text=text, limits=limits) as gateway,
        AsyncExitStack() as stack,
    ):
        noisy, quiet = gateway.token(agent=NOISY), gateway.token()
        wires = [await stack.enter_async_context(gateway.connect()) for _ in range(8)]
        for wire in wires:
            await wire.send(gateway.head(b"POST", b"/api/x", *lines, token=noisy) + b" " * 200)
        answers = [asyncio.ensure_future(wire.response(b"POST")) for wire in wires]
        async with asyncio.timeout(20):
            while sum(one.done() for one in answers) < 5:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.01)
        refused = [one.result().error for one in answers if one.done()]
        assert refused == ["overloaded"] * 5  # three quarters of the room hold the other three
        body = b" " * 198 + b"{}"
        response = await gateway.call(b"POST", b"/api/x", lines[0], body=body, token=quiet)
        assert response.status == 200
        for one in answers:
            one.cancel()


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


@contextmanager
def many_descriptors(least: int) -> Iterator[None]:
    """Have so many descriptors in this process, or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < least:
        pytest.skip(f"this needs {least} file descriptors, and there are {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, least), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_mib(process: int) -> float:
    """Return the memory that a process occupies now."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_r6_ten_thousand_idle_connections_keep_nobody_out(
    tmp_path: Path, tls_authority: TestAuthority
) -> None:
    """More than the gateway takes: who has been served stays, who comes gets in."""
    home = BrokerHome.create(tmp_path / "home")
    port = int(home.environment["BROKER_GATEWAY_PORT"])

    def get(connection: HTTPConnection, token: str) -> int:
        connection.request("GET", "/api/v1/charges", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        response.read()
        return response.status

    with (
        many_descriptors(12_000),
        vendor_api(KEY, tls_authority.certificate("127.0.0.1")) as vendor,
    ):
        create_private(home.path / "api.key", KEY.encode())
        home.policy(POLICY.format(vendor=vendor.url, ca_file=tls_authority.ca_file, home=home.path))
        home.run("agents", "enroll", "kept")
        with running_broker(home) as broker:
            token = home.run("token", "--agent", "kept", "--scope", "api.read").strip()
            before = resident_mib(broker.process)
            kept = HTTPConnection("127.0.0.1", port, timeout=20)
            assert get(kept, token) == httpx.codes.OK
            first = kept.sock
            with crowd(port, 10_000):
                for _ in range(40):
                    newcomer = HTTPConnection("127.0.0.1", port, timeout=20)
                    assert get(newcomer, token) == httpx.codes.OK
                    newcomer.close()
                    assert get(kept, token) == httpx.codes.OK
                assert kept.sock is first, "it was cut off, and came anew"
                assert httpx.get(f"{home.control_url}/readyz", trust_env=False).is_success
                assert resident_mib(broker.process) - before < 128
            kept.close()
