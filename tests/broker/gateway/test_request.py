from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.limits import GatewayLimits
from broker.gateway.problems import Refusal
from broker.gateway.request import Request, RequestReader

HEAD = b"GET /api/v1/x?a=1 HTTP/1.1\r\nHost: gateway.test\r\nX-A: b\r\n\r\n"


def reader(**limits: int) -> RequestReader:
    return RequestReader(GatewayLimits(**limits))


def read(data: bytes, **limits: int) -> Request:
    request = reader(**limits).read(data)
    assert isinstance(request, Request)
    return request


def refused(data: bytes, **limits: int) -> str:
    refusal = reader(**limits).read(data)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.final
    return refusal.code


def test_a_request_is_read() -> None:
    request = read(HEAD + b"what follows")
    assert (request.method, request.path, request.query) == (b"GET", b"/api/v1/x", b"a=1")
    assert request.size == len(HEAD)
    assert request.fields.host == b"gateway.test"
    assert not request.fields.has_body


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", None),
        (b"/?", b"/", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/a%2Fb", b"/a%2Fb", None),
        (b"http://gateway.test/a?b", b"/a", b"b"),
        (b"HTTP://GATEWAY.TEST/a", b"/a", None),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes | None) -> None:
    head = b"GET %b HTTP/1.1\r\nHost: gateway.test\r\n\r\n" % target
    request = read(head)
    assert (request.path, request.query, request.size) == (path, query, len(head))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"GET  /x HTTP/1.1", "malformed_request"),
        (b"GET /x  HTTP/1.1", "malformed_request"),
        (b" GET /x HTTP/1.1", "malformed_request"),
        (b"GET\t/x HTTP/1.1", "malformed_request"),
        (b"GET /x", "malformed_request"),
        (b"GET /x HTTP/1.1 ", "malformed_request"),
        (b"GET /x http/1.1", "malformed_request"),
        (b"GET /x HTTP/1.1\r", "malformed_request"),
        (b"GET /x y HTTP/1.1", "malformed_request"),
        (b"GET /x\0 HTTP/1.1", "malformed_request"),
        (b"GET /\xc3\xa9 HTTP/1.1", "malformed_request"),
        (b"GET /x#f HTTP/1.1", "malformed_request"),
        (b"GET /x?a#f HTTP/1.1", "malformed_request"),
        (b"GET x HTTP/1.1", "malformed_request"),
        (b"GET * HTTP/1.1", "malformed_request"),
        (b"OPTIONS * HTTP/1.1", "malformed_request"),
        (b"GET http://evil.test/x HTTP/1.1", "malformed_request"),
        (b"GET http://gateway.test@evil.test/x HTTP/1.1", "malformed_request"),
        (b"GET http://gateway.test HTTP/1.1", "malformed_request"),
        (b"GET https://gateway.test/x HTTP/1.1", "malformed_request"),
        (b"GET //gateway.test/x HTTP/1.0", "version_refused"),
        (b"GET /x HTTP/2.0", "version_refused"),
        (b"GET /x HTTP/0.9", "version_refused"),
        (b"GET /x HTTP/1.10", "malformed_request"),
        (b"PRI * HTTP/2.0", "version_refused"),
        (b"get /x HTTP/1.1", "method_refused"),
        (b"Get /x HTTP/1.1", "method_refused"),
        (b"TRACE /x HTTP/1.1", "method_refused"),
        (b"CONNECT /x HTTP/1.1", "method_refused"),
        (b"CONNECT gateway.test:443 HTTP/1.1", "method_refused"),
        (b"BREW /x HTTP/1.1", "method_refused"),
        (b"\x16\x03\x01\x02\x00", "malformed_request"),
    ],
    ids=repr,
)
def test_request_lines_that_are_refused(line: bytes, code: str) -> None:
    assert refused(line + b"\r\nHost: gateway.test\r\n\r\n") == code


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b"a", b"a"],
        [b"a", b"b"],
        [b""],
        [b"good@evil"],
        [b"a b"],
        [b"a/b"],
        [b"a:b"],
        [b"a:"],
        [b"a:123456"],
        [b"a,b"],
        [b"[::1"],
        [b"::1"],
        [b"a\\b"],
        [b"a?b"],
        [b"a#b"],
        [b"-a"],
        [b"a\xc3\xa9"],
    ],
    ids=repr,
)
def test_hosts_that_are_refused(hosts: list[bytes]) -> None:
    lines = b"".join(b"Host: %b\r\n" % host for host in hosts)
    assert refused(b"GET / HTTP/1.1\r\n%b\r\n" % lines) == "malformed_request"


@pytest.mark.parametrize(
    "host", [b"a", b"a.b-c.example:8701", b"127.0.0.1:1", b"[::1]", b"[::1]:80"]
)
def test_hosts(host: bytes) -> None:
    assert read(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).fields.host == host


def test_what_the_fields_say() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close, X-B\r\nExpect: 100-Continue\r\n%b\r\n"
    fields = read(head % b"Content-Length: 5\r\nUpgrade: h2c\r\n").fields
    assert (fields.length, fields.chunked, fields.has_body) == (5, False, True)
    assert fields.closes
    assert fields.expects
    assert isinstance(fields.handshake, Refusal)
    fields = read(head % b"Transfer-Encoding: chunked\r\n").fields
    assert (fields.length, fields.chunked, fields.has_body) == (None, True, True)
    assert fields.handshake is None


def test_limits() -> None:
    assert refused(HEAD + b"x", head_bytes=len(HEAD) - 1) == "head_too_large"
    assert refused(b"G" * 200, head_bytes=100) == "head_too_large"
    assert read(HEAD, head_bytes=len(HEAD)).size == len(HEAD)
    assert refused(HEAD, head_fields=1) == "head_too_large"
    assert refused(HEAD, target_bytes=10) == "target_too_long"
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"
    assert refused(post, body_bytes=10) == "body_too_large"
    assert read(post, body_bytes=11).fields.length == 11
    expecting = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: coffee\r\n\r\n"
    assert refused(expecting) == "expectation_failed"


@pytest.mark.parametrize("data", [b"GET", HEAD[:-1], HEAD[:-2], HEAD[:-3], b"GET / HTTP/1.1\r\n"])
def test_an_unfinished_head_is_waited_for(data: bytes) -> None:
    assert reader().read(data) is None


@pytest.mark.parametrize(
    "data",
    [b"\n", b"GET / HTTP/1.1\nHost", b"\r\nGET", b"\x16\x03\x01", b"{", b"GET / HTTP/1.1\r\n\n"],
)
def test_what_can_become_no_request_is_not_waited_for(data: bytes) -> None:
    assert refused(data) == "malformed_request"


def test_a_repeated_head_is_read_once() -> None:
    one = reader()
    first = one.read(HEAD)
    assert one.read(HEAD + b"more") is first
    assert one.read(HEAD[:-1]) is None
    other = one.read(HEAD.replace(b"/x?", b"/y?"))
    assert isinstance(other, Request)
    assert other.path == b"/api/v1/y"
    assert one.read(HEAD) is not first


def test_another_spelling_of_a_head_is_read_anew() -> None:
    one = reader()
    absolute = HEAD.replace(b"/api", b"http://gateway.test/api", 1)
    for _ in range(2):
        first, second = one.read(absolute), one.read(HEAD)
        assert isinstance(first, Request)
        assert isinstance(second, Request)
        assert (first.size, second.size) == (len(absolute), len(HEAD))
        assert first.path == second.path == b"/api/v1/x"


def test_repeated_fields_are_read_once() -> None:
    one = reader()
    first, second = one.read(HEAD), one.read(HEAD.replace(b"/x?a=1", b"/y") + b"more")
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert second.path == b"/api/v1/y"
    assert second.size == len(HEAD) - 4
    assert second.fields is first.fields


@given(st.data())
def test_remembering_changes_nothing(data: st.DataObject) -> None:
    """A reader with a memory says of each head what a new one says."""
    pieces = [
        b"GET /a HTTP/1.1\r\n",
        b"GET /b HTTP/1.1\r\nHost: a\r\n",
        b"Host: a\r\n",
        b"X: 1\r\n",
    ]
    pieces += [
        b"\r\n",
        b"\n",
        b" ",
        b"Host: b\r\n",
        b"Content-Length: 3\r\n",
        b"POST /a HTTP/1.1\r\n",
    ]
    heads = st.lists(st.sampled_from(pieces), max_size=6).map(b"".join)
    remembering = reader()
    for head in data.draw(st.lists(heads, max_size=5)):
        fresh, known = reader().read(head), remembering.read(head)
        if isinstance(fresh, Request):
            assert isinstance(known, Request)
            assert known.fields.fields == fresh.fields.fields
            assert (known.method, known.path, known.query, known.size) == (
                *(fresh.method, fresh.path, fresh.query, fresh.size),
            )
        else:
            assert known == fresh


def test_what_has_been_here_before_is_a_loop() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 x, 1.1 %b\r\n\r\n"
    for name, loop in ((b"broker-me", True), (b"broker-other", False)):
        found = RequestReader(GatewayLimits(), b"broker-me").read(head % name)
        assert isinstance(found, Refusal) is loop
    assert isinstance(reader().read(head % b"broker-me"), Request)
