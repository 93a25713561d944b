from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.framing import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
    chunk,
)
from broker.gateway.grammar import Malformed


def feed(body: Body, data: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes]:
    """Feed data in pieces; return the content and what follows the body."""
    places = sorted(cut % (len(data) + 1) for cut in cuts or [])
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    content, rest = b"", b""
    for piece in pieces:
        if body.done:
            rest += piece
        elif piece:
            content += body.feed(piece)
            rest += body.rest
    return content, rest


cuts = st.lists(st.integers(0, 500), max_size=12)


@given(st.binary(max_size=50), st.binary(max_size=20), cuts)
def test_a_length_ends_the_body(content: bytes, rest: bytes, places: list[int]) -> None:
    body = LengthBody(len(content))
    assert feed(body, content + rest, places) == (content, rest)
    assert body.done
    assert body.left == 0


def test_a_length_is_waited_for() -> None:
    body = LengthBody(3)
    assert body.feed(b"ab") == b"ab"
    assert (body.done, body.left) == (False, 1)


def test_a_close_ends_the_body() -> None:
    body = UntilCloseBody()
    assert body.feed(b"abc") == b"abc"
    assert not body.done


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"", b";a=b", b" ;x"]))
    ),
    st.lists(st.sampled_from([b"X-Sum: 1\r\n", b"Y:\r\n"]), max_size=3),
    st.binary(max_size=20),
    cuts,
)
def test_chunks_are_joined_and_the_rest_is_kept(
    chunks: list[tuple[bytes, bytes]], trailers: list[bytes], rest: bytes, places: list[int]
) -> None:
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(data), ext, data) for data, ext in chunks)
    wire += b"0\r\n" + b"".join(trailers) + b"\r\n"
    body = ChunkedBody()
    content = b"".join(data for data, _ in chunks)
    assert feed(body, wire + rest, places) == (content, rest)
    assert body.done
    assert [line + b"\r\n" for line in body.trailers] == trailers


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"F" * 16 + b"\r\nhello",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n X: folded\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\nX: a\0\r\n\r\n",
        b"0\r\n" + b"X: 1\r\n" * 65 + b"\r\n",
        b"0\r\n" + (b"X: " + b"1" * 3000 + b"\r\n") * 6 + b"\r\n",
    ],
    ids=repr,
)
def test_chunks_that_can_be_read_in_two_ways_are_refused(wire: bytes) -> None:
    with pytest.raises(Malformed):
        feed(ChunkedBody(), wire)
    with pytest.raises(Malformed):
        feed(ChunkedBody(), wire, list(range(len(wire))))


@pytest.mark.parametrize("wire", [b"5;" + b"a" * 5000, b"0\r\nX: " + b"a" * 5000, b"1" * 5000])
def test_endless_lines_are_refused(wire: bytes) -> None:
    with pytest.raises(Malformed):
        feed(ChunkedBody(), wire)
    with pytest.raises(Malformed):
        feed(ChunkedBody(), wire, list(range(0, len(wire), 50)))


def test_an_unfinished_body_is_not_done() -> None:
    for wire in (
        b"",
        b"5",
        b"5\r\nhel",
        b"5\r\nhello",
        b"5\r\nhello\r",
        b"0\r\n",
        b"0\r\nX: 1\r\n",
    ):
        body = ChunkedBody()
        feed(body, wire)
        assert not body.done


@given(st.lists(st.binary(min_size=1, max_size=70_000), max_size=3))
def test_what_is_written_is_read_back(parts: list[bytes]) -> None:
    wire = b"".join(map(chunk, parts)) + LAST_CHUNK
    assert feed(ChunkedBody(), wire) == (b"".join(parts), b"")


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_chunks_that_come_one_by_one_are_read_as_in_one_piece(parts: list[bytes]) -> None:
    body = ChunkedBody()
    assert [body.feed(chunk(part)) for part in parts] == parts
    assert body.feed(b"0\r\n\r\nnext") == b""
    assert body.done
    assert body.rest == b"next"


def test_what_looks_like_a_chunk_inside_of_one_is_content() -> None:
    inner = chunk(b"hello")
    body = ChunkedBody()
    assert body.feed(b"%x\r\n" % (2 * len(inner))) == b""
    assert body.feed(inner) == inner
    assert body.feed(inner) == inner
    assert body.feed(b"\r\n0\r\n\r\n") == b""
    assert body.done


def test_what_looks_like_a_chunk_among_trailers_is_none() -> None:
    body = ChunkedBody()
    assert body.feed(b"0\r\n") == b""
    with pytest.raises(Malformed):
        body.feed(chunk(b"hello"))
    half = ChunkedBody()
    assert half.feed(b"1") == b""
    assert half.feed(b"5\r\nhello\r\n") == b"hello\r\n"
