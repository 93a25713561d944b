"""What is told a service is told policy. The rest is in tests/attacks/test_p7_bodies.py."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import pytest

from broker.gateway.held import Held, content_of
from broker.gateway.limits import GatewayLimits
from broker.gateway.request import Request, RequestFields, RequestReader
from broker.gateway.works import WholeBodies
from broker.policy.body import Content

JSON = b"Content-Type: application/json"


def fields(*lines: bytes) -> RequestFields:
    head = b"\r\n".join([b"POST /api/x HTTP/1.1", b"Host: g", *lines, b"", b""])
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    return request.fields


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([JSON], Content(b"{}", "application/json")),
        ([b"content-type:  a/b; c=\xe9 "], Content(b"{}", "a/b; c=\xe9")),
    ],
)
def test_a_body_has_the_type_that_its_head_names(lines: list[bytes], expected: Content) -> None:
    assert content_of(fields(*lines), b"{}") == expected


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "not exactly one Content-Type"),
        ([JSON, JSON], "not exactly one Content-Type"),
        ([JSON, b"Content_Type: a/b"], "not exactly one Content-Type"),
        ([b"Content_Type: application/json"], "not exactly one Content-Type"),
        ([JSON, b"Content-Encoding: gzip"], "Content-Encoding"),
        ([JSON, b"Content_Encoding: gzip"], "Content-Encoding"),
        ([JSON, b"Connection: x, CONTENT-TYPE"], "would not be sent on"),
    ],
)
def test_what_a_service_could_read_otherwise_is_a_problem(lines: list[bytes], problem: str) -> None:
    found = content_of(fields(*lines), b"{}").problem
    assert found is not None
    assert problem in found


def test_a_body_in_small_pieces_takes_little_more_than_its_bytes() -> None:
    works = SimpleNamespace(limits=GatewayLimits(), whole_bodies=WholeBodies(1 << 20))
    pending = SimpleNamespace(max_bytes=1 << 20, grant=SimpleNamespace(agent="a"))
    held = Held(works, SimpleNamespace(), pending)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        for number in range(50_000):
            held.add(b"%02d" % (number % 100))
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    assert works.whole_bodies.size == 100_000
    held.hung_up()
    held.hung_up()
    assert works.whole_bodies.size == 0


def test_a_chunked_body_is_framed_by_its_length_once_it_is_here() -> None:
    before = fields(b"Transfer-Encoding: chunked", b"Trailer: x-t")
    before.derived["kept"] = 1
    after = before.reframed(5)
    assert (after.chunked, after.length, after.has_body) == (False, 5, True)
    assert not after.trailers
    assert not after.derived
    assert (before.chunked, before.length, before.trailers) == (True, None, frozenset([b"x-t"]))
    assert not before.reframed(0).has_body
    assert not fields(b"Content-Length: 5", b"Expect: 100-continue").reframed(5).expects
    known = fields(b"Content-Length: 5")
    assert known.reframed(5) is known
