from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.allowance import LARGEST_BODY, Limits, Rate, size_text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1B"), (1023, "1023B"), (1024, "1KiB"), (1500, "1500B"), (1 << 20, "1MiB"),
     (3 << 19, "1536KiB"), (LARGEST_BODY, "512GiB")],
)  # fmt: skip
def test_a_size_is_shown_exactly(number: int, text: str) -> None:
    assert size_text(number) == text


@given(st.integers(1, LARGEST_BODY))
def test_no_size_is_shown_as_another(number: int) -> None:
    text = size_text(number)
    digits = text.rstrip("GiMKB")
    unit = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[text.removeprefix(digits)]
    assert int(digits) << unit == number


def test_limits_are_told_in_their_order() -> None:
    limits = Limits((Rate(5, "second"), Rate(30, "minute")), 4, 100, 1 << 20, 1 << 30)
    assert limits.texts == (
        "rate 5/second",
        "rate 30/minute",
        "concurrent 4",
        "total 100",
        "request_bytes 1MiB",
        "response_bytes 1GiB",
    )
    assert Limits().texts == ()
    assert [Rate(1, unit).seconds for unit in ("second", "minute", "hour", "day")] == [
        1,
        60,
        3600,
        86_400,
    ]
