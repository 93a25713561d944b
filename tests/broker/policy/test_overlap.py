from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.overlap import covers, overlap
from broker.policy.rules import Rule, parse_rule

PATHS = [
    ("/" + "/".join(segments) + slash).encode()
    for length in range(5)
    for segments in product(["a", "b", "ab"], repeat=length)
    for slash in ("", "/")
    if length or not slash
]
segments = st.lists(
    st.sampled_from(["a", "b", "*", "**", "a*", "*b", "A", "ab"]), min_size=1, max_size=4
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    made = draw(segments)
    kept = [one for n, one in enumerate(made) if one != "**" or n == 0 or made[n - 1] != "**"]
    method = draw(st.sampled_from(["GET", "POST", "*"]))
    return parse_rule(f"{method} /{'/'.join(kept)}{draw(st.sampled_from(['', '/']))}")


def meets(rule: Rule) -> set[tuple[str, bytes]]:
    """The requests that a rule denies, of a few that are short."""
    return {
        (method, path)
        for method in ("GET", "POST", "PUT")
        if rule.names(method)
        for path in PATHS
        if rule.denies(path)
    }


@settings(max_examples=200)
@given(rules(), rules())
def test_says_that_one_covers_another_only_if_it_does(outer: Rule, inner: Rule) -> None:
    if covers(outer, inner):
        assert meets(inner) <= meets(outer)


@settings(max_examples=200)
@given(rules(), rules())
def test_says_that_two_overlap_whenever_they_do(one: Rule, other: Rule) -> None:
    if meets(one) & meets(other):
        assert overlap(one, other)
        assert overlap(other, one)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("* /**", "GET /v1"),
        ("GET /v1/**", "GET /v1"),
        ("GET /v1/**", "GET /v1/*/refunds"),
        ("GET /v1/**", "GET /v1/**/refunds"),
        ("* /v1/Refunds", "POST /v1/refunds/"),
        ("GET /users/@me", "GET /users/%40me"),
        ("GET /a/*", "GET /a/x*y"),
        ("GET /a/x*", "GET /a/xy*z"),
        ("GET /**/b/**", "GET /a/**/b/*"),
    ],
)
def test_finds_what_is_covered(outer: str, inner: str) -> None:
    assert covers(parse_rule(outer), parse_rule(inner))
    assert overlap(parse_rule(outer), parse_rule(inner))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("GET /v1/**", "* /v1/x"),
        ("GET /v1/**", "POST /v1/x"),
        ("GET /v1/*", "GET /v1/**"),
        ("GET /v1/*", "GET /v1"),
        ("GET /a/x*", "GET /a/*"),
        ("GET /a/x*y", "GET /a/x*"),
        ("GET /**/b", "GET /**/a"),
    ],
)
def test_does_not_find_what_is_not(outer: str, inner: str) -> None:
    assert not covers(parse_rule(outer), parse_rule(inner))


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("GET /v1/**", "* /**/cancel", True),
        ("GET /v1/*", "GET /v1/*/x", False),
        ("GET /a*", "GET /*b", True),
        ("GET /a*", "GET /b*", False),
        ("GET /*a", "GET /*b", False),
        ("GET /a", "POST /a", False),
        ("GET /**/x/**", "GET /a/**/y", True),
    ],
)
def test_finds_requests_that_meet_both(one: str, other: str, *, answer: bool) -> None:
    assert overlap(parse_rule(one), parse_rule(other)) is answer


@pytest.mark.timeout(20)
def test_rules_of_many_stars_are_compared_in_bounded_time() -> None:
    many = parse_rule("GET /" + "/".join(["**", "*", "a*"] * 80))
    other = parse_rule("GET /" + "/".join(["**", "a", "*"] * 80) + "/b")
    covers(many, other)
    covers(other, many)
    assert overlap(many, other) is overlap(other, many)
