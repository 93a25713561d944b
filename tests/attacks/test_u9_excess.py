"""U9: more than an answer: floods of 1xx, trailers that say what a head must not, 10,000 fields."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gateway import KEY, policy_text
from tests.fakes.upstream import raw, reply

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

SECRET = KEY.encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </x?key=%b>\r\n\r\n" % SECRET
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n2\r\nok\r\n0\r\n%b\r\n"


async def test_u9_a_few_interim_answers_are_kept_from_the_agent(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(b"HTTP/1.1 100 Continue\r\n\r\n" + HINT * 8 + OK)
    answer = await gateway.talk(gateway.head(b"GET", b"/api/x", b"Connection: close"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"ok")


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Hints", b"199 X"])
async def test_u9_a_flood_of_interim_answers_is_a_502(gateway: GatewayBench, status: bytes) -> None:
    interim = b"HTTP/1.1 %b\r\n\r\n" % status
    gateway.upstream.answer = raw(interim * 10_000 + OK)
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "upstream_malformed")
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/x")).body == b"clean"
    assert gateway.upstream.connections == 2


async def test_u9_interim_answers_buy_no_time(gateway: GatewayBench) -> None:
    async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for _again in range(15):
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.1)

    where = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"
    gateway.load(policy_text(f"{where}, timeouts: {{first_byte: 300ms}}"))
    gateway.upstream.answer = drip
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (504, "upstream_timeout")


FORBIDDEN = [
    b"Authorization: Bearer mine",
    b"Proxy-Authorization: Basic mine",
    b"Cookie: session=mine",
    b"Set-Cookie: session=mine",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Host: evil.test",
    b"Content-Type: text/html",
    b"Content_Encoding: gzip",
    b"Location: https://evil.test/",
    b"Broker-Error: forged",
    b"Trailer: Authorization",
    b"Upgrade: websocket",
    b"TE: trailers",
    b"Expect: 100-continue",
    b"Cache-Control: public",
    b"Via: 1.1 evil",
]
OF_REQUESTS = [
    b"X-Api-Key: mine",
    b"x_api_key: mine",
    b"X-Forwarded-Host: evil.test",
    b"X-HTTP-Method-Override: DELETE",
    b"X-Original-URL: /admin",
    b"Range: bytes=0-1",
    b"Accept-Encoding: gzip",
    b"Sec-WebSocket-Extensions: x",
]


@pytest.mark.parametrize("line", FORBIDDEN, ids=repr)
async def test_u9_no_credential_and_no_framing_in_a_responses_trailer(
    gateway: GatewayBench, line: bytes
) -> None:
    declared = b"Trailer: X-Fine, %b\r\n" % line.split(b":")[0]
    gateway.upstream.answer = raw(CHUNKED % (declared, b"X-Fine: 1\r\n%b\r\n" % line))
    answer = await gateway.talk(
        gateway.head(b"GET", b"/api/x", b"TE: trailers", b"Connection: close")
    )
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"\r\nTrailer: x-fine" in head
    assert head.count(b"\r\nTrailer: ") == 1
    assert line.split(b":")[0].lower() not in head.lower().split(b"trailer: ")[1].split(b"\r\n")[0]
    assert rest == b"2\r\nok\r\n0\r\nX-Fine: 1\r\n\r\n"


@pytest.mark.parametrize("line", FORBIDDEN + OF_REQUESTS, ids=repr)
async def test_u9_no_credential_and_no_framing_in_a_requests_trailer(
    gateway: GatewayBench, line: bytes
) -> None:
    declared = b"Trailer: X-Fine, %b" % line.split(b":")[0]
    head = gateway.head(b"POST", b"/keyed/x", b"Transfer-Encoding: chunked", declared)
    async with gateway.connect() as wire:
        await wire.send(head + b"2\r\nok\r\n0\r\nX-Fine: 1\r\n%b\r\n\r\n" % line)
        assert (await wire.response()).status == 200
    assert gateway.upstream.last.all(b"trailer") == [b"x-fine"]
    assert gateway.upstream.last.all(b"x-api-key") == [SECRET]
    assert gateway.upstream.bytes_received.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nX-Fine: 1\r\n\r\n")


async def test_u9_a_trailer_that_echoes_the_credential(gateway: GatewayBench) -> None:
    section = b"X-Fine: %b\r\n" % SECRET.hex().encode()
    gateway.upstream.answer = raw(CHUNKED % (b"Trailer: X-Fine\r\n", section))
    for lines in ((b"TE: trailers",), ()):
        answer = await gateway.talk(gateway.head(b"GET", b"/api/x", *lines, b"Connection: close"))
        assert SECRET.hex().encode() not in answer


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X-Long-Name-%d: value\r\n" % 7])
async def test_u9_ten_thousand_fields_in_a_request(gateway: GatewayBench, line: bytes) -> None:
    head = gateway.head(b"GET", b"/api/x")[:-2] + line * 10_000 + b"\r\n"
    answer = await gateway.talk(head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert gateway.upstream.bytes_received == b""


async def test_u9_ten_thousand_fields_in_an_answer(gateway: GatewayBench) -> None:
    for count in (201, 10_000):
        head = b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % SECRET * count
        gateway.upstream.answer = raw(head + b"Content-Length: 2\r\n\r\nok")
        response = await gateway.call(b"GET", b"/api/x")
        assert (response.status, response.error) == (502, "upstream_malformed")
        assert SECRET not in response.head + response.body


@pytest.mark.parametrize("count", [65, 10_000])
async def test_u9_ten_thousand_trailers(gateway: GatewayBench, count: int) -> None:
    section = b"X-Fine: 1\r\n" * count
    gateway.upstream.answer = raw(CHUNKED % (b"Trailer: X-Fine\r\n", section))
    answer = await gateway.talk(
        gateway.head(b"GET", b"/api/x", b"TE: trailers", b"Connection: close")
    )
    # The head may be out already: then it is cut, and nobody takes it for whole.
    assert b"X-Fine: 1" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    head = gateway.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked", b"Trailer: X-Fine")
    answer = await gateway.talk(head + b"2\r\nok\r\n0\r\n" + section + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
