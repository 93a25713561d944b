from __future__ import annotations

import base64
import secrets
import uuid
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.patterns import SHAPE, is_card, is_opaque, kind_at
from tests.broker.audit.samples import CREDENTIALS


@pytest.mark.parametrize(
    "digits",
    [
        "4111" + "111111111111",
        "4222" + "222222222",
        "5555" + "555555554444",
        "2223" + "003122003222",
        "3782" + "82246310005",
        "6011" + "111111111117",
        "3530" + "111333300000",
        "3056" + "9309025904",
        "4111-1111-" + "1111-1111",
    ],
)  # fmt: skip
def test_card_numbers(digits: str) -> None:
    assert is_card(digits)


@pytest.mark.parametrize(
    "digits",
    [
        "4111111111111112",  # the sum is wrong
        "1773570225123456",  # no issuer's range
        "0000000000000000",
        "411111111111111",  # a digit short
        "9111111111111111",
    ],
)
def test_digits_that_are_no_card_number(digits: str) -> None:
    assert not is_card(digits)


@given(st.from_regex(r"4\d{14}", fullmatch=True))
def test_exactly_one_check_digit_makes_a_card_number(digits: str) -> None:
    assert sum(is_card(digits + str(check)) for check in range(10)) == 1


def test_nearly_all_random_keys_look_random() -> None:
    random = Random(20260315)  # noqa: S311 - the same keys in every run
    keys = [base64.urlsafe_b64encode(random.randbytes(30)).decode() for _ in range(2000)]
    assert sum(map(is_opaque, keys)) > 0.97 * len(keys)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(str(uuid.UUID(int=secrets.randbits(128))), id="uuid"),
        pytest.param(secrets.token_hex(20), id="sha1"),
        pytest.param(secrets.token_hex(32), id="sha256"),
        "ch_" + "3MmlLrLkdIwHu7ix0snN0B15" + "abcd",
        "Release-2026-03-15-Build-4-Final",
        "a-very-long-slug-of-words-that-means-something-to-readers",
        "TheNameOfAClassThatSomebodyGaveItWithoutThinking2",
        "SCREAMING_SNAKE_CASE_CONSTANT_NAME_42",
    ],
)
def test_names_and_digests_do_not(run: str) -> None:
    assert not is_opaque(run)


def test_a_prefix_that_means_a_key_is_no_excuse() -> None:
    assert is_opaque("key_" + "q7Wz2Kp9Lm4Xv8Rt3Yb6Nc1Hd5Jf")
    assert not is_opaque("obj_" + "q7Wz2Kp9Lm4Xv8Rt3Yb6Nc1Hd5Jf")


def test_a_shape_has_a_kind() -> None:
    text = "a " + CREDENTIALS["GitLab token"]
    match = SHAPE.search(text)
    assert match is not None
    assert kind_at(text, match.start()) == "gitlab-token"
