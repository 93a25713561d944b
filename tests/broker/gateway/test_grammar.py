from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.grammar import (
    Field,
    Framing,
    Malformed,
    connection_options,
    has_bare_line_feed,
    read_fields,
    read_framing,
)

LINE = b"GET / HTTP/1.1\r\n"


def fields(block: bytes, limit: int = 100) -> tuple[Field, ...]:
    return read_fields(LINE + block, len(LINE), httptools.HttpRequestParser, limit)


def framing(*lines: bytes) -> Framing:
    return read_framing(
        tuple(
            Field(name.lower(), name, value)
            for name, _, value in (line.partition(b": ") for line in lines)
        )
    )


def test_fields_keep_their_spelling_and_lose_outer_blanks() -> None:
    found = fields(b"Host: a\r\nX-Odd_name:\t b  c \t\r\nEmpty:\r\n\r\n")
    assert found == (
        (b"host", b"Host", b"a"),
        (b"x-odd_name", b"X-Odd_name", b"b  c"),
        (b"empty", b"Empty", b""),
    )
    assert found[1].line() == b"X-Odd_name: b  c\r\n"


@pytest.mark.parametrize(
    "block",
    [
        b"Host: a\n\r\n",
        b"Host: a\r\nX: 1\n\r\n",
        b"Host: a\r\n X: folded\r\n\r\n",
        b"Host: a\r\nX: 1\r\n\tfolded\r\n\r\n",
        b"Host : a\r\n\r\n",
        b"Host\t: a\r\n\r\n",
        b": a\r\n\r\n",
        b"Host\r\n\r\n",
        b"Host: a\0b\r\n\r\n",
        b"Host: a\rb\r\n\r\n",
        b"Host: a\r\r\n\r\n",
        b"Host: a\x7fb\r\n\r\n",
        b"Host: a\x0bb\r\n\r\n",
        b"H\xc3\xb6st: a\r\n\r\n",
        b"H(o)st: a\r\n\r\n",
        b'"Host": a\r\n\r\n',
        b"\r\nHost: a\r\n\r\n",
        b" Host: a\r\n\r\n",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"Host: a\r\nContent-Length: 3, 3\r\n\r\n",
    ],
    ids=repr,
)
def test_what_two_readers_may_take_differently_is_refused(block: bytes) -> None:
    with pytest.raises(Malformed):
        fields(block)


def test_the_number_of_fields_is_limited() -> None:
    assert len(fields(b"A: b\r\n" * 5 + b"\r\n", limit=5)) == 5
    with pytest.raises(Malformed, match="at most 5"):
        fields(b"A: b\r\n" * 6 + b"\r\n", limit=5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"X-A", b"x-b", b"Accept", b"x.y"]),
            st.binary(max_size=12) | st.sampled_from([b"a", b" b ", b"c\td"]),
            st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\n ", b" \r\n", b""]) | st.just(b"\r\n"),
        ),
        max_size=4,
    )
)
def test_whatever_is_read_h11_reads_the_same_way(
    lines: list[tuple[bytes, bytes, bytes]],
) -> None:
    block = b"Host: a\r\n" + b"".join(b"%b:%b%b" % line for line in lines) + b"\r\n"
    try:
        found = fields(block)
    except Malformed:
        return
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(LINE + block)
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    assert [(field.key, field.value) for field in found] == list(request.headers)
    assert reader.next_event() == h11.EndOfMessage()
    assert reader.next_event() is h11.PAUSED or reader.trailing_data == (b"", False)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Framing(chunked=False, length=None)),
        ([b"Content-Length: 0"], Framing(chunked=False, length=0)),
        ([b"Content-Length: 007"], Framing(chunked=False, length=7)),
        ([b"Transfer-Encoding: chunked"], Framing(chunked=True, length=None)),
    ],
)
def test_framing(lines: list[bytes], expected: Framing) -> None:
    assert framing(*lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5,5"],
        [b"Content-Length: +5"],
        [b"Content-Length: -5"],
        [b"Content-Length: 5 "],
        [b"Content-Length: 0x5"],
        [b"Content-Length: 5_0"],
        [b"Content-Length: 1e3"],
        [b"Content-Length: "],
        [b"Content-Length: " + b"9" * 19],
        [b"Content-Length: \xd9\xa5"],
        [b"Transfer-Encoding: Chunked"],
        [b"Transfer-Encoding: chunked "],
        [b"Transfer-Encoding: chunked\t"],
        [b"Transfer-Encoding: \x0bchunked"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked;x=1"],
        [b'Transfer-Encoding: "chunked"'],
        [b"Transfer-Encoding: "],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    ],
    ids=repr,
)
def test_framing_that_can_be_read_in_two_ways_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(Malformed):
        framing(*lines)


def test_connection_options() -> None:
    found = fields(b"Host: a\r\nConnection: Close, X-A\r\nconnection:\tkeep-alive ,\r\n\r\n")
    assert connection_options(found) == {b"close", b"x-a", b"keep-alive", b""}


@pytest.mark.parametrize(
    ("data", "bare"),
    [(b"", False), (b"a\r\nb\r\n", False), (b"\n", True), (b"a\nb", True), (b"a\r\n\n", True)],
)
def test_bare_line_feeds(data: bytes, bare: bool) -> None:  # noqa: FBT001 - a table's column
    assert has_bare_line_feed(data) is bare
