from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api.body import BodyTooLarge, CallerGone, read_body

if TYPE_CHECKING:
    from starlette.types import Receive


def _sending(*chunks: bytes, hang_up: bool = False) -> Receive:
    last = {"type": "http.disconnect"} if hang_up else {"type": "http.request"}
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    waiting = iter([*messages, last])

    async def receive() -> dict[str, Any]:
        return next(waiting)

    return receive


@given(st.lists(st.binary(max_size=20), max_size=10))
async def test_a_body_is_its_chunks_or_too_large(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    if len(whole) <= 50:
        assert await read_body(None, _sending(*chunks), 50) == whole
    else:
        with pytest.raises(BodyTooLarge):
            await read_body(None, _sending(*chunks), 50)


@pytest.mark.parametrize("length", [b"0", b"5", b"50", b"05"])
async def test_a_length_within_the_limit(length: bytes) -> None:
    assert await read_body(length, _sending(b"hello"), 50) == b"hello"


@pytest.mark.parametrize("length", [b"51", b"-1", b"", b"x", b"1e1", b"9" * 5000, b"\xb2"])
async def test_a_length_over_the_limit_or_none_at_all(length: bytes) -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(length, _sending(b"hello"), 50)


async def test_a_length_that_was_a_lie() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(b"1", _sending(b"x" * 51), 50)


async def test_a_caller_that_hangs_up() -> None:
    with pytest.raises(CallerGone):
        await read_body(None, _sending(b"hel", hang_up=True), 50)
