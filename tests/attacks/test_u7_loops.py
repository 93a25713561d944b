"""U7: what this gateway has sent itself is refused with 508, whatever way it comes back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from broker.gateway.base import Resource
from tests.fakes.gateway import GATEWAY, ISSUER, policy_text, socket_policy
from tests.fakes.switching import ASKED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.gateway import GatewayBench

PSEUDONYM = Resource(GATEWAY, ISSUER).pseudonym


@asynccontextmanager
async def way_back(gateway: GatewayBench) -> AsyncIterator[list[bytes]]:
    """A port that leads to the gateway: a load balancer, a tunnel, another name in the DNS."""
    seen: list[bytes] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        back, forth = await asyncio.open_connection("127.0.0.1", gateway.port)
        forth.write(seen[-1])
        await asyncio.gather(pipe(reader, forth), pipe(back, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway.upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()


@pytest.mark.parametrize("policy", [policy_text, socket_policy])
@pytest.mark.parametrize("lines", [(), ASKED], ids=["request", "websocket"])
async def test_u7_a_service_that_is_the_gateway_itself(
    gateway: GatewayBench, policy: type, lines: tuple[bytes, ...]
) -> None:
    gateway.upstream.port = gateway.port
    gateway.load(policy())
    response = await gateway.call(b"GET", b"/api/api/api/x", *lines)
    if lines and policy is policy_text:
        assert response.error == "upgrade_refused"
    else:
        assert (response.status, response.error) == (508, "loop_detected")
        assert (await gateway.records())[-1]["decision"] == "error"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_u7_a_loop_over_something_in_between(gateway: GatewayBench, method: bytes) -> None:
    """With a task token as the service's key, each turn would be allowed, and the next."""
    async with way_back(gateway) as seen:
        gateway.load(policy_text())
        gateway.secrets.values["env:KEY"] = gateway.token()
        # What the agent says about where it has been neither helps nor hinders.
        lines = (b"Via: 1.1 elsewhere", b"Connection: Via", b"Max-Forwards: 9")
        response = await gateway.call(method, b"/api/api/api/api/x", *lines)
        assert (response.status, response.error) == (508, None)  # as the service's answer
        (head,) = seen
        assert head.count(b"\r\nVia: 1.1 " + PSEUDONYM + b"\r\n") == 1
    outcomes = [one for one in await gateway.records() if one["phase"] == "outcome"]
    assert [(one["decision"], one["status"]) for one in outcomes] == [
        ("error", 508),
        ("allow", 508),
    ]


async def test_u7_the_ways_of_others_are_passed_on(gateway: GatewayBench) -> None:
    """So that they find their own loops."""
    await gateway.call(b"GET", b"/api/x", b"Via: 1.1 elsewhere")
    assert gateway.upstream.last.all(b"via") == [b"1.1 elsewhere", b"1.1 " + PSEUDONYM]


async def test_u7_to_forge_the_mark_stops_nobody_else(gateway: GatewayBench) -> None:
    response = await gateway.call(b"GET", b"/api/x", b"Via: 1.1 " + PSEUDONYM)
    assert (response.status, response.error) == (508, "loop_detected")
    assert (await gateway.call(b"GET", b"/api/x")).status == 200


def test_u7_a_broker_behind_another_is_no_loop() -> None:
    names = {
        Resource(GATEWAY, ISSUER).pseudonym,
        Resource(GATEWAY + "/x", ISSUER).pseudonym,
        Resource(GATEWAY, ISSUER + "/x").pseudonym,
    }
    assert len(names) == 3
    assert PSEUDONYM in names  # and the same again in the next process
