from __future__ import annotations

import base64
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from broker.gateway import frames
from broker.gateway.frames import FrameScrubbing
from broker.gateway.grammar import Malformed
from broker.gateway.scrub import scrubber

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    TraceFunction = Callable[[FrameType, str, Any], Any]

SECRET = b"sk_live_canary_7f3a9c"
STARS = b"*" * len(SECRET)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """What the `websockets` library sends as a server."""
    return Frame(opcode, data, fin).serialize(mask=False)


def scrubbed(data: bytes, *cuts: int) -> bytes:
    """Scrub a stream that comes in pieces."""
    scrubbing = FrameScrubbing(scrubber([SECRET]))
    places = [0, *sorted(cuts), len(data)]
    passed = [scrubbing.content(data[start:end], done=False) for start, end in pairwise(places)]
    return b"".join([*passed, scrubbing.content(b"", done=True)])


def messages(data: bytes) -> list[Frame]:
    """What the `websockets` library reads of a stream as a client."""
    client = Protocol(CLIENT)
    client.receive_data(data)
    assert client.parser_exc is None
    return [event for event in client.events_received() if isinstance(event, Frame)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_frames_of_all_sizes_pass_as_they_are(opcode: Opcode, size: int) -> None:
    data = frame(opcode, b"x" * size) + frame(Opcode.PING, b"p") + frame(Opcode.TEXT, b"y" * size)
    assert scrubbed(data) == data


@pytest.mark.parametrize("written", [SECRET, base64.b64encode(SECRET), SECRET.hex().encode()])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.CLOSE])
def test_a_secret_is_overwritten_in_its_place(opcode: Opcode, written: bytes) -> None:
    before = b"\x03\xe8key: " if opcode is Opcode.CLOSE else b"the key: "
    data = frame(opcode, before + written)
    for cut in range(len(data)):
        out = scrubbed(data, cut)
        assert len(out) == len(data)
        assert written[4:-4] not in out
        (found,) = messages(out)
        assert (found.opcode, len(found.data)) == (opcode, len(before + written))


def test_a_secret_in_several_fragments_is_found_around_what_is_between() -> None:
    for cut in range(1, len(SECRET)):
        parts = [
            frame(Opcode.TEXT, b"a" + SECRET[:cut], fin=False),
            frame(Opcode.PING, b"still there"),
            frame(Opcode.CONT, b"", fin=False),
            frame(Opcode.CONT, SECRET[cut:] + b"z"),
            frame(Opcode.TEXT, b"next"),
        ]
        for place in (0, len(parts[0]), len(parts[0]) + 5):
            out = scrubbed(b"".join(parts), place)
            found = messages(out)
            kinds = [one.opcode for one in found]
            assert kinds == [Opcode.TEXT, Opcode.PING, Opcode.CONT, Opcode.CONT, Opcode.TEXT]
            assert [len(one.data) for one in found] == [1 + cut, 11, 0, len(SECRET) - cut + 1, 4]
            content = b"".join(bytes(one.data) for one in found if one.opcode is not Opcode.PING)
            assert content == b"a" + STARS + b"z" + b"next"


def test_a_complete_message_waits_for_nothing() -> None:
    """It may end in what a secret begins with, and the agent is to answer it."""
    scrubbing = FrameScrubbing(scrubber([SECRET]))
    for text in (b"s", SECRET[:-1], b"answer me: s"):
        data = frame(Opcode.TEXT, text)
        assert scrubbing.content(data, done=False) == data
    unfinished = frame(Opcode.TEXT, b"token s", fin=False)
    assert scrubbing.content(unfinished, done=False) == unfinished[:-1]
    rest = frame(Opcode.CONT, b"end")
    assert scrubbing.content(rest, done=False) == b"s" + rest
    assert not scrubbing.found


def test_no_secret_is_made_of_two_messages() -> None:
    data = frame(Opcode.TEXT, SECRET[:9]) + frame(Opcode.TEXT, SECRET[9:])
    assert scrubbed(data) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x85\x00\x00\x00\x00hello",  # masked
        b"\xc1\x05hello",  # RSV1, as compressed messages have it
        b"\xa1\x05hello",
        b"\x91\x05hello",
        b"\x83\x05hello",  # opcodes without a meaning
        b"\x8b\x05hello",
        b"\x81\x7e\x00\x05hello",  # lengths that are not written as short as they can be
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x05hello",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
        b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\x89\x7e\x00\x7e" + b"x" * 126,  # a control frame that is too long, or in fragments
        b"\x09\x01x",
        b"\x80\x01x",  # a continuation of nothing, and a message within another
        b"\x01\x01x\x81\x01x",
    ],
    ids=repr,
)
def test_what_is_no_frame_of_a_service_is_not_let_through(data: bytes) -> None:
    with pytest.raises(Malformed):
        scrubbed(data)
    with pytest.raises(Malformed):
        scrubbed(data, 1)


def test_compressed_messages_are_refused() -> None:
    server = Protocol(SERVER)
    server.extensions = [PerMessageDeflate(False, False, 15, 15)]
    server.send_text(b"hello hello hello")
    with pytest.raises(Malformed):
        scrubbed(b"".join(server.data_to_send()))


def test_a_message_never_finished_is_scrubbed_at_the_end() -> None:
    data = frame(Opcode.TEXT, b"a" + SECRET, fin=False)
    assert SECRET not in scrubbed(data)
    assert scrubbed(data[:-3]) == data[:-3]  # the beginning of one that never came
    assert scrubbed(data[:1]) == data[:1]
    ping = frame(Opcode.PING, b"abc")
    assert scrubbed(ping[:3]) == ping[:3]


def test_what_stands_between_fragments_is_bounded() -> None:
    scrubbing = FrameScrubbing(scrubber([SECRET]))
    scrubbing.content(frame(Opcode.TEXT, b"s", fin=False), done=False)
    pings = frame(Opcode.PING, b"x" * 100) * 100
    scrubbing.content(pings, done=False)
    with pytest.raises(Malformed, match="too much"):
        scrubbing.content(pings, done=False)


def test_empty_fragments_take_time_in_proportion_to_their_number() -> None:
    def lines(number: int) -> int:
        """Count the lines of code that many fragments take, while some content is held back."""
        empty = frame(Opcode.CONT, b"", fin=False)
        data = frame(Opcode.TEXT, SECRET[:9], fin=False) + empty * number
        data += b"".join(frame(Opcode.CONT, bytes([one]), fin=False) for one in SECRET[9:-1])
        scrubbing, run = FrameScrubbing(scrubber([SECRET])), 0

        def count(at: FrameType, event: str, _: object) -> TraceFunction | None:
            nonlocal run
            run += event == "line"
            return count if at.f_code.co_filename == frames.__file__ else None

        before = sys.gettrace()
        sys.settrace(count)
        try:
            scrubbing.content(data, done=False)
        finally:
            sys.settrace(before)
        return run

    assert 100 < lines(400) < 2.5 * lines(200)


_PIECES = st.sampled_from([b"", b"s", b"sk_live", SECRET[:10], SECRET[10:], SECRET, b"xyz", b"9c"])


@given(
    st.lists(st.tuples(st.lists(_PIECES, min_size=1, max_size=4), st.booleans()), max_size=4),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_cuts_change_nothing(sent: list[tuple[list[bytes], bool]], cuts: list[int]) -> None:
    stream, texts = b"", []
    for parts, pinged in sent:
        for number, part in enumerate(parts):
            opcode = Opcode.CONT if number else Opcode.TEXT
            stream += frame(opcode, part, fin=number == len(parts) - 1)
            stream += frame(Opcode.PING, b"?") if pinged else b""
        texts.append(b"".join(parts))
    out = scrubbed(stream, *(min(cut, len(stream)) for cut in cuts))
    assert out == scrubbed(stream)
    assert len(out) == len(stream)
    found: list[bytes] = []
    for one in messages(out):
        if one.opcode is Opcode.TEXT:
            found.append(b"")
        if one.opcode is not Opcode.PING:
            found[-1] += bytes(one.data)
    assert found == [text.replace(SECRET, STARS) for text in texts]
