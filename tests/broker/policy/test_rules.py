from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.canonical import canonical_problem
from broker.policy.rules import METHODS, Rule, parse_rule
from tests.fakes.rule_model import is_meant

REFUSED = {
    "get /v1": "write 'GET'",
    "GTE /v1": "'GTE' is not a method; did you mean 'GET'?",
    "PSOT /v1": "did you mean 'POST'?",
    "TRACE /v1": "TRACE is never allowed",
    "CONNECT /v1": "CONNECT is never allowed",
    "/v1": "expected 'METHOD PATH'",
    "GET": "expected 'METHOD PATH'",
    "GET  /v1": "one space",
    "GET /v1 ": "expected 'METHOD PATH'",
    " GET /v1": "expected 'METHOD PATH'",
    "GET\t/v1": "expected 'METHOD PATH'",
    "GET /v1\n": "expected 'METHOD PATH'",
    "GET /a b": "expected 'METHOD PATH'",
    "GET v1": "does not begin with '/'",
    "GET https://api.example.com/v1": "does not begin with '/'",
    "GET /v1//x": "always refused",
    "GET /v1/../x": "dot segment",
    "GET /v1/%2e": "written as itself",
    "GET /v1/a%2Fb": "encoded '/'",
    "GET /v1?x=1": "'?'",
    "GET /v1;x": "';'",
    "GET /caf\u00e9": "non-ASCII",
    "GET /v1/*.": "ends in a dot",
    "GET /v1/{agent}": "no templates",
    "GET /v1/{claims.repository}": "no templates",
    "GET /v1/{id}": "percent-encode it",
    "GET /v1/a**": "must be a whole one",
    "GET /v1/**a": "must be a whole one",
    "GET /v1/***": "must be a whole one",
    "GET /v1/*a*": "once in a segment",
    "GET /v1/**/**": "write '**'",
    "GET /" + "a" * 1024: "longer than",
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.items())
def test_refuses_what_is_no_rule_or_can_never_match(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse_rule(text)


@pytest.mark.parametrize("value", [None, 7, ["GET /v1"], {"GET": "/v1"}, b"GET /v1"])
def test_refuses_what_is_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="METHOD PATH"):
        parse_rule(value)


MATCHES = [
    ("GET /", "/", True),
    ("GET /", "/v1", False),
    ("GET /v1", "/v1", True),
    ("GET /v1", "/v1/", False),
    ("GET /v1/", "/v1/", True),
    ("GET /v1/", "/v1", False),
    ("GET /v1", "/v10", False),
    ("GET /v1", "/V1", False),
    ("GET /v1.0/x", "/v1a0/x", False),
    ("GET /v1/*", "/v1/charges", True),
    ("GET /v1/*", "/v1/", False),
    ("GET /v1/*", "/v1/charges/ch_1", False),
    ("GET /v1/*/refunds", "/v1/ch_1/refunds", True),
    ("GET /v1/**", "/v1", True),
    ("GET /v1/**", "/v1/", True),
    ("GET /v1/**", "/v1/a/b/c", True),
    ("GET /v1/**", "/v1beta", False),
    ("GET /**", "/", True),
    ("GET /**/refunds", "/refunds", True),
    ("GET /**/refunds", "/a/b/refunds", True),
    ("GET /**/refunds", "/a/b/refunds/c", False),
    ("GET /a/**/b/**/c", "/a/b/c", True),
    ("GET /a/**/b/**/c", "/a/x/b/y/b/z/c", True),
    ("GET /a/**/b/**/c", "/a/x/y/c", False),
    ("GET /a/**/b/*/c", "/a/b/b/x/c", True),
    ("GET /a/*/**", "/a", False),
    ("GET /a/*/**", "/a/x", True),
    ("GET /models/*:run", "/models/m:run", True),
    ("GET /models/*:run", "/models/:run", False),
    ("GET /models/*:run", "/models/m:runs", False),
    ("GET /models/*:run", "/models/m/n:run", False),
    ("GET /files/img-*.png", "/files/img-1.png.png", True),
    ("GET /files/img-*", "/files/img-", False),
    ("GET /a%20b", "/a%20b", True),
    ("GET /users/@me", "/users/%40me", False),
]


@pytest.mark.parametrize(("rule", "path", "matches"), MATCHES)
def test_an_allow_rule_matches_these_bytes(rule: str, path: str, *, matches: bool) -> None:
    assert parse_rule(rule).allows(path.encode()) is matches


DENIES = [
    ("* /v1/refunds", "/v1/refunds", True),
    ("* /v1/refunds", "/v1/refunds/", True),
    ("* /v1/refunds/", "/v1/refunds", True),
    ("* /v1/refunds", "/V1/Refunds", True),
    ("* /v1/refunds", "/v1/refunds/re_1", False),
    ("* /v1/*/cancel", "/v1/x/CANCEL/", True),
    ("* /users/@me", "/users/%40me", True),
    ("* /users/%40me", "/users/@ME", True),
    ("* /models/*:run", "/models/m%3aRUN", True),
    ("* /a%20b", "/A%20B/", True),
    ("* /caf%C3%A9", "/CAF%C3%89", True),
    ("* /caf%C3%89", "/caf%c3%a9", True),
    ("* /%CF%83", "/%CF%82", True),  # a final sigma is a sigma
    ("* /**/secrets/**", "/a/Secrets", True),
    ("* /**/secrets/**", "/a/secret", False),
    ("* /", "/", True),
    ("* /", "/v1", False),
]


@pytest.mark.parametrize(("rule", "path", "matches"), DENIES)
def test_a_deny_rule_matches_every_spelling(rule: str, path: str, *, matches: bool) -> None:
    assert parse_rule(rule).denies(path.encode()) is matches


def test_names_its_method_or_all() -> None:
    assert parse_rule("GET /v1").names("GET")
    assert not parse_rule("GET /v1").names("HEAD")
    assert all(parse_rule("* /v1").names(method) for method in METHODS)


def is_meant_by_denial(rule: Rule, path: str) -> bool:
    def folded(segments: list[str]) -> list[str]:
        found = [unquote(segment).casefold() for segment in segments]
        return found[:-1] if len(found) > 1 and not found[-1] else found

    return is_meant(folded(list(rule.segments)), folded(path[1:].split("/")))


LETTERS = ["a", "A", "b", "ab", "aa", "@", "%40", ":", "%3A", "a:b", "%C3%A9", "%C3%89", "a%20b"]
patterns = st.lists(
    st.sampled_from([*LETTERS, "*", "**", "a*", "*b", "a*b", "*:b"]), min_size=1, max_size=6
)
paths = st.lists(st.sampled_from(LETTERS), max_size=7)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    segments = draw(patterns)
    kept = [
        one
        for index, one in enumerate(segments)
        if one != "**" or index == 0 or segments[index - 1] != "**"
    ]
    return parse_rule("GET /" + "/".join(kept) + draw(st.sampled_from(["", "/"])))


@settings(max_examples=500)
@given(rules(), paths, st.sampled_from(["", "/"]))
def test_matches_what_is_meant(rule: Rule, segments: list[str], slash: str) -> None:
    path = "/" + "/".join(segments) + (slash if segments else "")
    assert canonical_problem(path.encode()) is None
    assert rule.allows(path.encode()) is is_meant(list(rule.segments), path[1:].split("/"))
    assert rule.denies(path.encode()) is is_meant_by_denial(rule, path)


@given(rules(), paths)
def test_a_deny_rule_matches_whatever_it_would_allow(rule: Rule, segments: list[str]) -> None:
    path = ("/" + "/".join(segments)).encode()
    if rule.allows(path):
        assert rule.denies(path)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "rule",
    [
        "GET /" + "/".join(["**", "a"] * 200),
        "GET /" + "/".join(["**", "*"] * 200),
        "GET /" + "/".join(["*", "**", "*", "a*a"] * 60) + "/b",
        "GET /**/" + "a" * 900 + "*" + "a" * 90,
        "GET /" + "/".join(["*"] * 400),
    ],
    ids=lambda rule: rule[:24],
)
@pytest.mark.parametrize(
    "path", [b"/a" * 4096, b"/" + b"a" * 8190, b"/a" * 4000 + b"/b", b"/aa" * 2700]
)
def test_no_rule_is_slow_on_any_path(rule: str, path: bytes) -> None:
    parsed = parse_rule(rule)
    for _ in range(3):
        parsed.allows(path)
        parsed.denies(path)
