from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from broker.gateway.upload import CONTINUE, Upload

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Ends:
    """Both ends of a body's way, and what happened to them in order."""

    events: list[Any] = field(default_factory=list)

    def hold(self) -> None:
        self.events.append("hold")

    def release(self) -> None:
        self.events.append("release")

    def write(self, data: bytes) -> None:
        self.events.append(data)

    def sent(self) -> None:
        self.events.append("sent")


def upload(*, chunked: bool = False, buffer: int = 100) -> tuple[Upload, Ends]:
    ends = Ends()
    return Upload(ends, chunked=chunked, buffer=buffer), ends


def test_what_waits_is_sent_first() -> None:
    body, ends = upload()
    body.add(b"ab")
    body.add(b"cd")
    body.flow(ends)  # type: ignore[arg-type]
    body.add(b"ef")
    body.end()
    assert ends.events == [b"abcd", "release", b"ef", "sent"]
    assert (body.size, body.done) == (6, True)


@pytest.mark.parametrize(("chunked", "sent"), [(False, b"headabcd"), (True, b"head4\r\nabcd\r\n")])
def test_what_waits_can_go_out_behind_the_head(*, chunked: bool, sent: bytes) -> None:
    body, ends = upload(chunked=chunked)
    assert body.after(b"head") == b"head"
    body.add(b"ab")
    body.add(b"cd")
    assert body.after(b"head") == sent
    body.flow(ends)  # type: ignore[arg-type]
    body.add(b"ef")
    assert ends.events == ["release", b"2\r\nef\r\n" if chunked else b"ef"]


def test_a_large_body_does_not_go_out_behind_the_head() -> None:
    body, ends = upload(buffer=1 << 20)
    large = b"x" * (1 << 15)
    body.add(large)
    assert body.after(b"head") == b"head"
    body.flow(ends)  # type: ignore[arg-type]
    assert ends.events == [large, "release"]


def test_a_body_that_is_complete_before_it_flows() -> None:
    body, ends = upload(chunked=True)
    body.add(b"ab")
    body.end()
    body.flow(ends)  # type: ignore[arg-type]
    assert ends.events == [b"2\r\nab\r\n", b"0\r\n\r\n", "sent"]


def test_the_source_waits_when_too_much_waits() -> None:
    body, ends = upload(buffer=3)
    body.add(b"abc")
    assert ends.events == []
    body.add(b"d")
    assert ends.events == ["hold"]
    body.flow(ends)  # type: ignore[arg-type]
    assert ends.events == ["hold", b"abcd", "release"]


def test_the_source_waits_for_a_slow_upstream() -> None:
    body, ends = upload()
    body.flow(ends)  # type: ignore[arg-type]
    slow = [body.slow]
    body.brake()
    slow.append(body.slow)
    body.ease()
    slow.append(body.slow)
    assert slow == [False, True, False]
    assert ends.events == ["release", "hold", "release"]


def test_an_upstream_that_is_slow_at_once_keeps_the_source_waiting() -> None:
    body, ends = upload(buffer=1)
    body.add(b"ab")

    class Slow(Ends):
        def write(self, data: bytes) -> None:
            super().write(data)
            body.brake()

    slow = Slow(ends.events)
    body.flow(slow)  # type: ignore[arg-type]
    assert ends.events == ["hold", b"ab", "hold"]


@pytest.mark.parametrize("early", [True, False])
def test_a_trailer_section_is_what_may_pass_of_it(*, early: bool) -> None:
    def passing(lines: Sequence[bytes]) -> bytes:
        return b"".join(line + b"\r\n" for line in lines if line.startswith(b"X"))

    for lines, last in (
        ((b"X: 1", b"Host: evil"), b"0\r\nX: 1\r\n\r\n"),
        ((b"Host: evil",), b"0\r\n\r\n"),
        ((), b"0\r\n\r\n"),
    ):
        body, ends = upload(chunked=True)
        if early:
            body.end(lines)
        body.flow(ends, passing)  # type: ignore[arg-type]
        if not early:
            body.end(lines)
        assert ends.events[-2:] == [last, "sent"]


def test_without_anybody_to_say_so_no_trailer_passes() -> None:
    body, ends = upload(chunked=True)
    body.flow(ends)  # type: ignore[arg-type]
    body.end((b"X: 1",))
    assert ends.events[-2:] == [b"0\r\n\r\n", "sent"]


class Doubling:
    """A coder that writes everything twice, in whole pairs of bytes."""

    length = 0

    def __init__(self) -> None:
        self.rest = b""

    def add(self, content: bytes) -> bytes:
        whole = self.rest + content
        self.rest = whole[len(whole) - len(whole) % 2 :]
        return whole[: len(whole) - len(whole) % 2] * 2

    def end(self) -> bytes:
        return self.rest + b"."


def test_a_coder_turns_the_body_into_another() -> None:
    body, ends = upload(chunked=True)
    body.add(b"abc")
    body.flow(ends, None, Doubling())  # type: ignore[arg-type]
    body.add(b"d")
    body.add(b"e")
    body.end()
    # One byte alone is nothing to send, and an empty chunk would be the last.
    assert ends.events == [b"abab", "release", b"cdcd", b"e.", "sent"]


def test_a_body_that_is_collected_waits_whole_and_has_a_digest() -> None:
    body, ends = upload(chunked=True, buffer=3)
    body.add(b"abcd")
    body.collect(10, 6)
    body.add(b"ef")
    body.end()
    assert ends.events == ["hold", "release"]
    assert body.digest() == sha256(b"abcdef").hexdigest().encode()
    assert (body.whole, body.most, body.room) == (True, 10, 6)
    body.flow(ends)  # type: ignore[arg-type]
    assert ends.events[2:] == [b"abcdef", "sent"]  # without chunks: its length is known


@pytest.mark.parametrize("collects", [False, True])
def test_whoever_expects_it_is_told_to_go_on_once(*, collects: bool) -> None:
    ends = Ends()
    body = Upload(ends, chunked=False, buffer=100, expects=True)
    if collects:
        body.collect(10, 2)
    body.flow(ends)  # type: ignore[arg-type]
    assert ends.events.count(CONTINUE) == 1
    late = Upload(ends := Ends(), chunked=False, buffer=100, expects=True)
    late.add(b"ab")
    late.flow(ends)  # type: ignore[arg-type]
    assert CONTINUE not in ends.events


def test_small_pieces_that_wait_take_little_more_than_their_bytes() -> None:
    body, ends = upload(buffer=1 << 20)
    tracemalloc.start()
    try:
        for number in range(50_000):
            body.add(b"%02d" % (number % 100))
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    body.end()
    body.flow(ends)  # type: ignore[arg-type]
    assert b"".join(ends.events[:-1]) == b"%b" % b"".join(b"%02d" % n for n in range(100)) * 500
    assert ends.events[-1] == "sent"
