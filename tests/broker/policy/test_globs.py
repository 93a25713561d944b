from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.globs import Glob, parse_glob


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("refs/tags/*", "refs/tags/v1", True),
        ("refs/tags/*", "refs/tags/", True),
        ("refs/tags/*", "refs/tags/v1/evil", False),
        ("refs/tags/*", "xrefs/tags/v1", False),
        ("refs/tags/v*", "refs/tags/v1\n", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/shop:ref:refs/heads/main", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/shop:ref:refs/heads/mainx", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme-evil/x:ref:refs/heads/main", False),
        ("a.c*", "abcd", False),
        ("[ab]*", "a", False),
        ("*", "", True),
        ("*a*a*", "xaya", True),
        ("*a*a*", "xay", False),
        ("*-prod", "shop-prod", True),
        ("*|evil", "x|evil", True),
    ],
)
def test_is_anchored_and_stays_within_a_segment(pattern: str, text: str, *, matches: bool) -> None:
    assert parse_glob(pattern).matches(text) is matches


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "expected text"),
        (None, "expected text"),
        (7, "expected text"),
        (["a*"], "expected text"),
        ("main", "plain text"),
        ("refs/**", "does not cross"),
    ],
)
def test_refuses_what_is_no_glob(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_glob(value)


@given(st.text("ab/*", min_size=1, max_size=8), st.text("ab/", max_size=10))
def test_matches_as_a_plain_regular_expression_would(pattern: str, text: str) -> None:
    plain = "[^/]*".join(re.escape(part) for part in pattern.split("*"))
    if "*" in pattern:
        assert Glob(pattern).matches(text) is (re.fullmatch(plain, text) is not None)


@pytest.mark.timeout(20)
def test_no_pattern_is_slow() -> None:
    assert not Glob("*a" * 200 + "b").matches("a" * 50_000)
