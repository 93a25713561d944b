from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack.ext import ExtType
from tf.types import Unknown
from tf.utils import read_dynamic_value, to_dynamic_value

from broker.terraform.values import (
    Dynamic,
    from_state_file,
    holds_unknown,
    is_unknown,
    without_nulls,
)

REFINED = ExtType(12, b"\x81\x01\xc2")
"""What Terraform sends of a value of which it knows only that it is not null."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_comes_back_from_the_wire_as_it_was(value: Any) -> None:
    kind = Dynamic()
    sent = read_dynamic_value(to_dynamic_value({"x": kind.encode(value)}))["x"]
    assert kind.decode(sent) == value


@given(VALUES)
def test_a_value_comes_back_from_a_state_file_as_it_was(value: Any) -> None:
    encoded = Dynamic().encode(value)
    if encoded is not None:
        stored = {"type": json.loads(encoded[0]), "value": encoded[1]}
        assert from_state_file(json.loads(json.dumps(stored))) == encoded
    assert from_state_file(None) is None


def test_types_are_terraforms() -> None:
    value = {"a": [1, "b", None], "c": True, "d": Unknown}
    (kind, _) = Dynamic().encode(value)
    assert json.loads(kind) == [
        "object",
        {"a": ["tuple", ["number", "string", "dynamic"]], "c": "bool", "d": "dynamic"},
    ]
    assert Dynamic().tf_type() == b'"dynamic"'


@pytest.mark.parametrize("value", [Unknown, REFINED])
def test_what_is_not_known_stays_so(value: Any) -> None:
    assert is_unknown(value)
    assert Dynamic().encode(value) is value
    assert Dynamic().decode(value) is value
    assert holds_unknown({"a": [1, {"b": value}]})
    assert not holds_unknown({"a": [1, {"b": None}]})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": None}, {"a": 1}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({}, None, True),
        ({"a": None}, None, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": "1"}, False),
        ([1, 2], [2, 1], False),
        ([None], [], False),
        ({"a": Unknown}, {"a": Unknown}, True),
        ({"a": Unknown}, {"a": "Unknown"}, False),
    ],
)
def test_what_means_the_same_is_the_same(one: Any, other: Any, same: bool) -> None:  # noqa: FBT001
    assert Dynamic().semantically_equal(one, other) is same
    assert Dynamic().semantically_equal(other, one) is same


def test_null_members_count_as_absent() -> None:
    assert without_nulls({"a": None, "b": [{"c": None}, None]}) == {"b": [{}, None]}
