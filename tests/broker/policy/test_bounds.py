from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.bounds import AtMost, parse_at_most


@pytest.mark.parametrize("text", ["0", "1", "5000", "4999.99", "0.5", "5000.0", "5000.000"])
def test_takes_plain_numbers_up_to_it(text: str) -> None:
    assert AtMost(5000).matches(text)
    assert AtMost(5000).includes(Decimal(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "5001",
            "5000.0001",
            "-1",
            "-0",
            "+1",
            " 1",
            "1 ",
            "01",
            "00",
            "1.",
            ".5",
            "1e3",
            "0x1",
        ),
        *("1_000", "1,000", "NaN", "Infinity", "\u0661", "1\n", "5000.00000000000000001"),
        *("9" * 17, "9" * 100_000, "true"),
    ],
)
def test_takes_no_other_text(text: str) -> None:
    assert not AtMost(5000).matches(text)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        "1",
        5001,
        -1,
        Decimal("5000.0000000000001"),
        Decimal("-0.1"),
        [1],
        {},
        1e3,
    ],
)
def test_includes_no_other_value(value: object) -> None:
    assert not AtMost(5000).includes(value)


@given(st.integers(1, 2**53 - 1), st.integers(-10, 2**60))
def test_the_bound_is_exact(limit: int, value: int) -> None:
    bound = parse_at_most(limit)
    assert bound.includes(value) is (0 <= value <= limit)
    assert bound.matches(str(value)) is (0 <= value <= limit)


@pytest.mark.parametrize("value", [0, -1, True, "5", 1.5, None, 2**53, [1]])
def test_a_bound_is_a_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number after 'max:'"):
        parse_at_most(value)
