from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.conditions import ABSENT, accepts_all, lookup, parse_condition

VALUES = ["main", "", "1", "true", 1, 0, True, False, 1.0, None, [], ["main"], {}, {"a": "main"}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("expected", ["main", "1", "true", 1, 0, True, False], ids=repr)
def test_equal_values_have_equal_types(expected: str | int, value: Any) -> None:
    same = type(value) is type(expected) and value == expected
    assert parse_condition(expected).accepts(value) is same


def test_a_list_holds_alternatives() -> None:
    condition = parse_condition(["refs/heads/main", {"glob": "refs/tags/v*"}, 7])
    assert condition.accepts("refs/heads/main")
    assert condition.accepts("refs/tags/v1")
    assert condition.accepts(7)
    assert not condition.accepts("7")
    assert not condition.accepts("refs/tags/v1/x")
    assert not condition.accepts(["refs/heads/main"])


@pytest.mark.parametrize("value", [1, True, None, ["a"], {"glob": "a"}], ids=repr)
def test_a_glob_matches_text_alone(value: Any) -> None:
    assert not parse_condition({"glob": "*"}).accepts(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "empty list"),
        ("", "expected text"),
        (None, "expected text"),
        (1.5, "expected text"),
        ([["a"]], "expected text"),
        ([None], "expected text"),
        ({}, "glob"),
        ({"glob": "a*", "x": 1}, "glob"),
        ({"regex": "a.*"}, "glob"),
        ({"glob": "main"}, "plain text"),
        ({"glob": None}, "glob"),
        (["a", "a"], "twice"),
    ],
    ids=repr,
)
def test_refuses_what_is_no_condition(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_condition(value)


def test_true_and_1_are_two_alternatives() -> None:
    condition = parse_condition([True, 1])
    assert condition.accepts(1)
    assert condition.accepts(value=True)


CLAIMS = {
    "sub": "job",
    "kubernetes.io": {"namespace": "prod", "pod": {"name": "p", "uid": "u"}},
    "a.b": "top",
    "a": {"c": "inner"},
    "https://example.com/team": "core",
    "list": [{"x": 1}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "job"),
        ("kubernetes.io.namespace", "prod"),
        ("kubernetes.io.pod.uid", "u"),
        ("a.b", "top"),
        ("a.c", "inner"),
        ("https://example.com/team", "core"),
    ],
)
def test_a_name_leads_to_one_claim(name: str, value: str) -> None:
    assert lookup(CLAIMS, name) == value


@pytest.mark.parametrize(
    "name",
    ["", ".", "nobody", "kubernetes", "io.namespace", "kubernetes.io.pod.name.x", "sub.x", "a.b.c",
     "list.0.x", "SUB", "kubernetes.io.", ".sub"],
)  # fmt: skip
def test_what_is_not_there_is_absent(name: str) -> None:
    assert lookup(CLAIMS, name) is ABSENT
    assert not accepts_all({name: parse_condition({"glob": "*"})}, CLAIMS)


@pytest.mark.parametrize(
    "claims",
    [
        {"a.b": "chosen", "a": {"b": "real"}},
        {"a.b": "same", "a": {"b": "same"}},
        {"a": {"b.c": 1, "b": {"c": 2}}, "x": 1},
    ],
)
def test_what_could_be_read_in_two_ways_is_absent(claims: dict[str, Any]) -> None:
    assert lookup(claims, "a.b.c" if "x" in claims else "a.b") is ABSENT


def test_null_is_no_value() -> None:
    assert lookup({"a": None}, "a") is None
    assert not accepts_all({"a": parse_condition({"glob": "*"})}, {"a": None})


def test_all_conditions_must_hold() -> None:
    conditions = {"a": parse_condition("1"), "b": parse_condition(True)}
    assert accepts_all(conditions, {"a": "1", "b": True, "c": "more"})
    assert not accepts_all(conditions, {"a": "1"})
    assert not accepts_all(conditions, {"a": "1", "b": 1})
    assert not accepts_all(conditions, {"a": 1, "b": True})


@pytest.mark.timeout(20)
def test_claims_in_claims_do_not_make_it_slow() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep, "a.a": deep, "a.a.a": deep}
    for dots in (1, 8, 9, 2000):
        assert lookup(deep, ".".join("a" * (dots + 1)) + "x") is ABSENT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab1", max_size=2) | st.just(1.0),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "a.b"]), json_values),
    st.sampled_from(["a", "b", "a.b"]),
    st.sampled_from(["a", "1", 1, 0, True, False]),
)
def test_accepts_only_the_very_value(
    claims: dict[str, Any], name: str, expected: str | int
) -> None:
    if parse_condition(expected).accepts(lookup(claims, name)):
        readings = [claims.get(name)]
        if name == "a.b" and isinstance(claims.get("a"), dict):
            readings.append(claims["a"].get("b"))
        found = [one for one in readings if one is not None]
        assert [(type(one), one) for one in found] == [(type(expected), expected)]
