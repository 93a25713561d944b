"""What is sent a second time: once, and only what a kept connection certainly did not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gateway import policy_text, socket_policy
from tests.fakes.switching import agree, handshake
from tests.fakes.upstream import reply

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

KEPT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]


async def keep_one(gateway: GatewayBench, *last_words: bytes) -> None:
    """Have one connection kept, on which the next request gets these bytes and a close.

    Each further one, on whatever connection, gets the next.
    """
    left = list(last_words)

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        if not left:
            await reply(b"answered")(received, writer)
            return
        writer.write(left.pop(0))
        await writer.drain()
        await asyncio.sleep(0.02)  # for what was written to be seen before the close
        writer.transport.abort() if not left else writer.close()

    assert (await gateway.call(b"GET", b"/api/first")).status == 200
    gateway.upstream.answer = answer


def targets(gateway: GatewayBench) -> list[bytes]:
    return [one.target for one in gateway.upstream.requests]


@pytest.mark.parametrize("method", KEPT)
async def test_a_stale_connection_costs_one_more_try(gateway: GatewayBench, method: str) -> None:
    await keep_one(gateway, b"")
    response = await gateway.call(method.encode(), b"/api/x")
    assert response.status == 200
    assert targets(gateway) == [b"/first", b"/x", b"/x"]
    assert gateway.upstream.connections == 2
    # To the agent and to the trail it is one request.
    assert len(await gateway.records()) == 4


async def test_there_is_exactly_one_more_try(gateway: GatewayBench) -> None:
    """Even if another kept connection would be at hand, and is stale, too."""
    async with asyncio.TaskGroup() as group:  # two connections are kept
        for _ in range(2):
            group.create_task(gateway.call(b"GET", b"/api/first"))
    await keep_one(gateway, b"", b"")
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "upstream_closed")
    assert targets(gateway).count(b"/x") == 2


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_have_had_its_effect_is_not_sent_again(
    gateway: GatewayBench, method: str
) -> None:
    await keep_one(gateway, b"")
    response = await gateway.call(method.encode(), b"/api/x")
    assert (response.status, response.error) == (502, "upstream_closed")
    assert targets(gateway) == [b"/first", b"/x"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_what_has_a_body_is_not_sent_again(
    gateway: GatewayBench, method: str, *, chunked: bool
) -> None:
    """The body is gone by then: nothing is kept of it."""
    await keep_one(gateway, b"")
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 2"
    body = b"2\r\nok\r\n0\r\n\r\n" if chunked else b"ok"
    async with gateway.connect() as wire:
        await wire.send(gateway.head(method.encode(), b"/api/x", framing) + body)
        assert (await wire.response()).error == "upstream_closed"
    assert targets(gateway) == [b"/first", b"/x"]


@pytest.mark.parametrize(
    "last_words",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
    ids=repr,
)
async def test_what_was_answered_in_part_is_not_sent_again(
    gateway: GatewayBench, last_words: bytes
) -> None:
    await keep_one(gateway, last_words)
    answer = await gateway.talk(gateway.head(b"GET", b"/api/x", b"Connection: close"))
    assert b"answered" not in answer
    assert targets(gateway) == [b"/first", b"/x"]


@pytest.mark.parametrize("method", KEPT)
async def test_a_new_connection_is_not_stale(gateway: GatewayBench, method: str) -> None:
    async def hang_up(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    gateway.upstream.answer = hang_up
    async with gateway.connect() as wire:
        await wire.send(gateway.head(method.encode(), b"/api/x"))
        response = await wire.response(method.encode())
        assert (response.status, response.error) == (502, "upstream_closed")
    assert targets(gateway) == [b"/x"]


async def test_a_service_that_never_answers_is_asked_once(gateway: GatewayBench) -> None:
    """A time-out is no stale connection: the service may be at work."""
    where = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"
    gateway.load(policy_text(f"{where}, timeouts: {{first_byte: 200ms}}"))
    await gateway.call(b"GET", b"/api/first")
    gateway.upstream.answer = gateway.upstream.silence
    assert (await gateway.call(b"GET", b"/api/x")).error == "upstream_timeout"
    assert targets(gateway) == [b"/first", b"/x"]


async def test_a_handshake_on_a_stale_connection_is_sent_again(gateway: GatewayBench) -> None:
    gateway.load(socket_policy())
    await keep_one(gateway, b"")
    usual = gateway.upstream.answer

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        await (usual if len(gateway.upstream.requests) < 3 else agree)(received, writer)

    gateway.upstream.answer = answer
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway))
        assert (await wire.head()).status == 101
    assert targets(gateway) == [b"/first", b"/ws", b"/ws"]
