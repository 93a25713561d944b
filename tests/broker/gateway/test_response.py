from __future__ import annotations

import pytest

from broker.gateway.framing import ChunkedBody, LengthBody, UntilCloseBody
from broker.gateway.grammar import Malformed
from broker.gateway.limits import GatewayLimits
from broker.gateway.response import ResponseHead, ResponseReader


def read(head: bytes) -> ResponseHead:
    found = ResponseReader(GatewayLimits()).read(head)
    assert found is not None
    return found


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])


def test_what_the_agent_gets_to_see() -> None:
    found = read(
        head(
            *(b"Server: x", b"Content-Length: 05", b"Connection: keep-alive, X-Hop"),
            *(b"X-Hop: 1", b"Keep-Alive: timeout=5", b"Proxy-Authenticate: Basic"),
            *(b'Alt-Svc: h3=":443"', b"Broker-Error: forged", b"Trailer: X", b'ETag:  "a" '),
        )
    )
    assert found.start == b'HTTP/1.1 200 OK\r\nServer: x\r\nETag: "a"\r\nContent-Length: 5\r\n'
    assert found.ready == found.start + b"\r\n"
    assert found.persistent
    assert found.translated == ()


def test_fields_to_translate_are_set_aside() -> None:
    leading = [
        *(
            b"location",
            b"content-location",
            b"link",
            b"operation-location",
            b"azure-asyncoperation",
        ),
        *(b"x-goog-upload-url", b"x-goog-upload-control-url", b"set-cookie"),
    ]
    lines = [name.title() + b": /x" for name in leading]
    found = read(head(*lines, b"Content-Length: 0", b"X: y"))
    assert [field.key for field in found.translated] == leading
    assert found.start == b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\n"
    assert found.ready is None


@pytest.mark.parametrize(
    ("data", "persistent"),
    [
        (head(), True),
        (head(b"Connection: close"), False),
        (head(b"Connection: X, Close"), False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_persistence(data: bytes, persistent: bool) -> None:  # noqa: FBT001 - a table's column
    assert read(data).persistent is persistent


@pytest.mark.parametrize(
    ("status", "method", "has_body"),
    [
        (b"200 OK", b"GET", True),
        (b"200 OK", b"HEAD", False),
        (b"204 No Content", b"GET", False),
        (b"304 Not Modified", b"GET", False),
        (b"404 Not Found", b"POST", True),
        (b"999 Odd", b"GET", True),
    ],
)
def test_which_responses_have_a_body(status: bytes, method: bytes, has_body: bool) -> None:  # noqa: FBT001
    assert read(head(b"Content-Length: 5", status=status)).has_body(method) is has_body


def test_how_the_body_ends() -> None:
    assert isinstance(read(head(b"Transfer-Encoding: chunked")).body(), ChunkedBody)
    assert isinstance(read(head(b"Content-Length: 5")).body(), LengthBody)
    assert isinstance(read(head()).body(), UntilCloseBody)


def test_lengths_are_not_told_where_they_are_forbidden() -> None:
    assert b"Content-Length" not in read(head(b"Content-Length: 5", status=b"204 X")).start
    assert b"Content-Length: 5" in read(head(b"Content-Length: 5", status=b"304 X")).start


@pytest.mark.parametrize("status", [b"200", b"200 ", b"200 \xc3\xa4", b"200 a\tb", b"100 Continue"])
def test_status_lines(status: bytes) -> None:
    found = read(head(status=status))
    assert found.status == int(status[:3])
    assert found.interim is (found.status < 200)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200\tOK\r\n\r\n",
        b"HTTP/1.1 200 a\0b\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        head(b"Content-Length: 5", b"Content-Length: 5"),
        head(b"Content-Length: 5", b"Content-Length: 6"),
        head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        head(b"Transfer-Encoding: chunked\t"),
        head(b"Transfer-Encoding: gzip"),
        head(b"Transfer-Encoding: gzip, chunked"),
        head(b"X: a\rb"),
        head(b"X: a\0b"),
        head(b"X: a", b" folded"),
        head(b"X : a"),
        b"HTTP/1.1 200 OK\nX: y\n\n",
        b"HTTP/1.1 200 OK\r\nX: y\n\r\n",
    ],
    ids=repr,
)
def test_heads_that_can_be_read_in_two_ways_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


def test_limits() -> None:
    reader = ResponseReader(GatewayLimits(response_head_bytes=40, response_head_fields=2))
    with pytest.raises(Malformed, match="40 bytes"):
        reader.read(head(b"X: " + b"a" * 30))
    with pytest.raises(Malformed, match="40 bytes"):
        reader.read(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 30)
    with pytest.raises(Malformed, match="at most 2"):
        reader.read(head(b"A:", b"B:", b"C:"))


def test_an_unfinished_head_is_waited_for() -> None:
    reader = ResponseReader(GatewayLimits())
    data = head(b"X: y")
    assert all(reader.read(data[:size]) is None for size in range(1, len(data)))
    assert reader.read(data) is not None


def test_a_repeated_head_is_read_once() -> None:
    reader = ResponseReader(GatewayLimits())
    data = head(b"Content-Length: 1")
    first = reader.read(data + b"a")
    assert reader.read(data + b"b") is first
    other = reader.read(head(b"Content-Length: 2") + b"ab")
    assert other is not None
    assert other.length == 2


@pytest.mark.parametrize(
    ("status", "lines", "method", "ranges", "unfit"),
    [
        (b"200 OK", (), b"GET", False, False),
        (b"206 Partial Content", (), b"GET", False, True),
        (b"206 Partial Content", (), b"GET", True, False),
        (b"200 OK", (b"Content-Encoding: gzip",), b"GET", True, True),
        (b"206 Partial Content", (b"Content-Encoding: gzip",), b"GET", True, True),
        (b"200 OK", (b"Content-Encoding: gzip",), b"HEAD", False, False),
        (b"206 Partial Content", (b"Content-Length: 0",), b"GET", False, False),
    ],
)
def test_which_bodies_cannot_be_searched(
    status: bytes, lines: tuple[bytes, ...], method: bytes, *, ranges: bool, unfit: bool
) -> None:
    reason = read(head(*lines, status=status)).unfit_to_search(method, ranges=ranges)
    assert (reason is not None) is unfit
