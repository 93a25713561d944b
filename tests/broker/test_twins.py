from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.twins import twin


@given(st.text("abcXYZ019", min_size=1), st.lists(st.sampled_from("-_.!~'"), max_size=3))
def test_whatever_is_no_letter_and_no_digit_is_alike(word: str, marks: list[str]) -> None:
    for mark in marks:
        assert twin(f"{word}{mark}{word}".encode()) == f"{word}-{word}".encode()
    assert twin(word.encode()) == word.encode()
