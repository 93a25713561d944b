from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.base64url import decode, encode


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "Zm9=",
        "Zm8=",
        "Zm9v====",
        "Zm9v\n",
        " Zm9v",
        "Zm 9v",
        "AB",
        "AAB",
        "+_==",
        "/w",
        "+w",
        "Zm9v.",
        "Zm\u00e9v",
        "\uff21" * 4,
        "\ud800" * 4,
        "#Zm9v",
    ],
)
def test_every_spelling_but_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode(text)


@given(st.binary())
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    assert encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert decode(encode(data)) == data


@given(st.text(alphabet="ABCDabcd0123-_+/= \n.\u00e9", max_size=12))
def test_no_two_texts_mean_the_same(text: str) -> None:
    try:
        data = decode(text)
    except ValueError:
        return
    assert encode(data) == text
