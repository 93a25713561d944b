"""U10: an answer that two programs could read differently is a 502, and none of it gets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.upstream import raw, reply

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench

HEADS: list[bytes] = [
    # CR and LF where they end nothing, or end too much.
    b"HTTP/1.1 200 OK\r\nX: poison\rSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: poison\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: poison\n\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nX: poison\nContent-Length: 0\n\n",
    b"HTTP/1.1 200 OK\r\r\nX: poison\r\n\r\n",
    b"HTTP/1.1 200 po\rison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 po\nison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: poison\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\npoison\r\nContent-Length: 0\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nX: poison\r\nContent-Length: 0\r\n\r\n",
    # NUL and other control characters.
    b"HTTP/1.1 200 OK\r\nX: poi\x00son\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\x00: poison\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 poi\x00son\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: poi\x08son\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: poi\x7fson\r\nContent-Length: 0\r\n\r\n",
    # More than one length, or none that is a number.
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 0\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6 \r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x6\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\npoison",
    # Codings that not everybody takes for chunked.
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\npoison",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoi",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    # No status line of HTTP/1.
    b"HTTP/2 200 OK\r\nX: poison\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nX: poison\r\n\r\n",
    b"HTTP/1.1 20 OK\r\nX: poison\r\n\r\n",
    b"HTTP/1.1 099 OK\r\nX: poison\r\n\r\n",
    b"HTTP/1.1  200 OK\r\nX: poison\r\n\r\n",
    b"http/1.1 200 OK\r\nX: poison\r\n\r\n",
    b"ICY 200 OK\r\nX: poison\r\n\r\n",
    b"poison\r\n\r\n",
    b"\x16\x03\x03\x00\x02poison\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\npoisonHTTP/1.1 200 OK\r\n\r\n",
]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
async def test_u10_an_answer_with_two_readings_is_a_502(
    gateway: GatewayBench, method: bytes
) -> None:
    for wire in HEADS:
        gateway.upstream.answer = raw(wire, close=True)
        answer = await gateway.talk(gateway.head(method, b"/api/x", b"Connection: close"))
        assert answer.startswith(b"HTTP/1.1 502 "), wire
        assert b"\r\nBroker-Error: upstream_malformed\r\n" in answer, wire
        assert b"poi" not in answer, wire
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/x")).body == b"clean"


@pytest.mark.parametrize(
    "more",
    [
        b"2\nok\r\n0\r\n\r\n",
        b"2\r\nokX\r\n0\r\n\r\n",
        b"+2\r\nok\r\n0\r\n\r\n",
        b"2 \r\nok\r\n0\r\n\r\n",
        b"2;a\x00\r\nok\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nok",
        b"2\r\nok\r\n0\r\nX: a\x00b\r\n\r\n",
        b"2\r\nok\r\n0\r\nno colon\r\n\r\n",
        b"2\r\nok\r\n0\r\n X: folded\r\n\r\n",
    ],
    ids=repr,
)
async def test_u10_a_body_with_two_readings_never_looks_whole(
    gateway: GatewayBench, more: bytes
) -> None:
    gateway.upstream.answer = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + more)
    answer = await gateway.talk(gateway.head(b"GET", b"/api/x", b"Connection: close"))
    assert answer.startswith(b"HTTP/1.1 502 ") or not answer.endswith(b"0\r\n\r\n")
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/x")).body == b"clean"
    assert gateway.upstream.connections == 2


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2c\r\n"),
    ],
)
async def test_u10_a_body_where_there_is_none_is_nobodys_answer(
    gateway: GatewayBench, method: bytes, head: bytes
) -> None:
    """What comes after such an answer must not be taken for the next agent's."""
    gateway.upstream.answer = raw(head + POISON)
    assert (await gateway.call(method, b"/api/x")).body == b""
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/y")).body == b"clean"
    assert gateway.upstream.connections == 2


@pytest.mark.parametrize("framing", [b"Content-Length: 44", b"Transfer-Encoding: chunked"])
async def test_u10_a_204_that_speaks_of_a_body_ends_its_connection(
    gateway: GatewayBench, framing: bytes
) -> None:
    """Its body may come late, and be in the way of the next answer (RFC 9110, 8.6)."""
    gateway.upstream.answer = raw(b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % framing)
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.all(b"content-length")) == (204, [])
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/y")).body == b"clean"
    assert gateway.upstream.connections == 2
