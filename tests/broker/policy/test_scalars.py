from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.scalars import Scalar, plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("refs/heads/main", "refs/heads/main"),
        ("15m", "15m"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("123456", 123456),
        ("9007199254740991", 2**53 - 1),
        ("0.5", 0.5),
        ("1.10", 1.1),
        ("deadbeef", "deadbeef"),
        ("trueish", "trueish"),
        ("none", "none"),
        ("enable", "enable"),
    ],
)
def test_reads_what_every_reader_reads_alike(text: str, value: Scalar) -> None:
    found = plain_scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["no", "NO", "yes", "on", "Off", "y", "N", "0777", "0o17", "0x1f", "0b11", "+1", "1_000", "1e3",
     "1E-3", "12e34", "1.", ".5", "-.5", "1.5e3", ".inf", "-.INF", ".nan", "12:30", "1:30:00",
     "2024-06-20", "2024-06-20T10:00:00Z", "<<", "=", "00", "-0x1", "9007199254740992",
     "123456789012345678901234567890", "0.12345678901234567890"],
)  # fmt: skip
def test_refuses_what_readers_disagree_on(text: str) -> None:
    with pytest.raises(ValueError, match="quotes"):
        plain_scalar(text)


def test_names_words_and_never_digits() -> None:
    with pytest.raises(ValueError, match="'no'"):
        plain_scalar("no")
    with pytest.raises(ValueError, match="quotes") as refusal:
        plain_scalar("00424242")
    assert "424242" not in str(refusal.value)


@given(st.text("0123456789abcdefxyonETtrues_.:+-~", max_size=8))
def test_agrees_with_yaml_1_1_and_with_json(text: str) -> None:
    try:
        value = plain_scalar(text)
    except ValueError:
        return
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    assert loader.construct_object(yaml.ScalarNode(tag, text)) == value
    if not isinstance(value, str) and text not in {"", "~"}:
        assert json.loads(text.lower()) == value


@pytest.mark.timeout(10)
def test_long_digits_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="quotes"):
        plain_scalar("9" * 1_000_000)
