from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers import spop

numbers = st.one_of(st.integers(0, 5000), st.integers(0, (1 << 64) - 1))


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "00"), (239, "ef"), (240, "f000"), (2287, "ff7f"), (2288, "f08000"), (264431, "ffff7f")],
)
def test_numbers_are_written_as_the_protocol_says(value: int, written: str) -> None:
    assert spop.number(value).hex() == written
    assert spop.read_number(bytes.fromhex(written), 0) == (value, len(written) // 2)


@given(numbers, st.binary(max_size=4), st.binary(max_size=4))
def test_a_number_is_read_wherever_it_stands(value: int, before: bytes, after: bytes) -> None:
    written = spop.number(value)
    data = before + written + after
    assert spop.read_number(data, len(before)) == (value, len(before) + len(written))


@given(
    st.lists(st.tuples(st.integers(0, 255), numbers, numbers, st.binary(max_size=300)), max_size=5),
    st.data(),
)
def test_frames_are_read_however_they_are_cut(
    sent: list[tuple[int, int, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(spop.frame(kind, payload, one, own) for kind, one, own, payload in sent)
    cut = data.draw(st.integers(0, len(stream)))
    first, rest = spop.frames(stream[:cut])
    others, nothing = spop.frames(rest + stream[cut:])
    assert nothing == b""
    assert [*first, *others] == [spop.Frame(*one) for one in sent]


@given(st.text(max_size=300), numbers)
def test_the_arguments_of_a_question_are_read(said: str, amount: int) -> None:
    payload = spop.text("judge") + b"\5"
    payload += spop.text("a") + b"\x08" + spop.text(said) + spop.text("b") + b"\0"
    payload += spop.text("c") + b"\3" + spop.number(amount)
    payload += spop.text("d") + b"\x11" + spop.text("e") + b"\x01"
    expected = {"a": said.encode().decode("latin-1"), "b": None, "c": amount, "d": True, "e": False}
    assert spop.asked(payload) == expected
