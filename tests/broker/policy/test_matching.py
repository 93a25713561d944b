from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import Allow, Decision, Deny
from broker.policy.body import NeedsBody
from broker.policy.matching import Authorizer, ScopeRules, canonical_problem, open_ended, risk_of
from broker.policy.query import Parameter, QueryRule
from broker.policy.rules import METHODS, parse_rule

if TYPE_CHECKING:
    from broker.model import Risk


def scope(
    name: str,
    allow: list[str],
    deny: list[str] | None = None,
    query: dict[str, Parameter] | None = None,
    risk: Risk | None = None,
) -> ScopeRules:
    return ScopeRules(
        name,
        tuple(parse_rule(text) for text in allow),
        tuple(parse_rule(text) for text in deny or ()),
        None if query is None else QueryRule(query),
        risk,
    )


def judged(scopes: list[ScopeRules], request: str, query: bytes = b"") -> Decision:
    method, path = request.split(" ")
    decision = Authorizer("stripe", scopes).judge(method.encode(), path.encode(), query)
    assert not isinstance(decision, NeedsBody)
    return decision


READ = scope("read", ["GET /v1/**"])
REFUND = scope("refund", ["GET /v1/charges/*", "* /v1/refunds/**"], ["* /v1/refunds/*/cancel"])


def test_the_first_rule_that_allows_is_named() -> None:
    assert judged([READ], "GET /v1/charges") == Allow("read", "GET /v1/**", "low")
    assert judged([REFUND], "POST /v1/refunds") == Allow("refund", "* /v1/refunds/**", "medium")


def test_a_deny_rule_ends_it_and_is_named() -> None:
    decision = judged([REFUND], "POST /v1/refunds/re_1/cancel")
    assert isinstance(decision, Deny)
    assert decision.rule == "* /v1/refunds/*/cancel"
    assert "refund" in decision.reason
    assert decision.allowed == ("GET /v1/charges/*", "* /v1/refunds/**")


def test_no_rule_is_a_denial_that_says_what_would_be_allowed() -> None:
    decision = judged([READ, REFUND], "POST /v1/charges")
    assert isinstance(decision, Deny)
    assert decision.rule is None
    assert decision.allowed == ("GET /v1/**", "GET /v1/charges/*", "* /v1/refunds/**")
    assert "read, refund" in decision.reason


def test_without_scopes_nothing_is_allowed() -> None:
    decision = judged([], "GET /v1/charges")
    assert isinstance(decision, Deny)
    assert decision.allowed == ()


def test_a_scope_means_the_same_whatever_it_is_granted_with() -> None:
    narrow = scope("narrow", ["GET /v1/**"], ["GET /v1/secrets/**"])
    assert isinstance(judged([narrow], "GET /v1/secrets/a"), Deny)
    assert judged([narrow, READ], "GET /v1/secrets/a") == Allow("read", "GET /v1/**", "low")


@pytest.mark.parametrize("method", ["get", "Get", "TRACE", "CONNECT", "", "GE", "GETS", "*"])
def test_no_rule_covers_these_methods(method: str) -> None:
    everything = scope("all", ["* /**"])
    decision = Authorizer("stripe", [everything]).judge(method.encode(), b"/v1", b"")
    assert isinstance(decision, Deny)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_star_covers_every_other_method(method: str) -> None:
    assert isinstance(judged([scope("all", ["* /**"])], f"{method} /v1"), Allow)


@pytest.mark.parametrize(
    ("method", "mark", "risk"),
    [
        ("GET", None, "low"),
        ("HEAD", None, "low"),
        ("OPTIONS", None, "low"),
        ("POST", None, "medium"),
        ("PUT", None, "medium"),
        ("PROPFIND", None, "medium"),
        ("DELETE", None, "high"),
        ("GET", "medium", "medium"),
        ("GET", "high", "high"),
        ("POST", "high", "high"),
        ("DELETE", "medium", "high"),
        ("DELETE", "low", "high"),
    ],
)
def test_the_risk_is_the_methods_and_at_least_the_scopes(
    method: str, mark: Risk | None, risk: Risk
) -> None:
    assert risk_of(method, mark) == risk
    assert judged([scope("s", ["* /**"], risk=mark)], f"{method} /x") == Allow("s", "* /**", risk)


def test_of_two_scopes_that_allow_the_less_risky_one_answers() -> None:
    risky, plain = scope("a", ["GET /**"], risk="high"), scope("b", ["GET /**"])
    assert judged([risky, plain], "GET /x") == Allow("b", "GET /**", "low")


def test_a_query_rule_is_judged_where_its_scope_has_one() -> None:
    public = scope("public", ["GET /search"], query={"type": Parameter(("public",))})
    assert judged([public], "GET /search", b"type=public") == Allow("public", "GET /search", "low")
    for query in (b"", b"type=private", b"type=public&type=private"):
        decision = judged([public], "GET /search", query)
        assert isinstance(decision, Deny)
        assert "type" in decision.reason
    assert isinstance(judged([public, scope("all", ["* /**"])], "GET /search"), Allow)
    assert isinstance(judged([public], "GET /other", b"type=public"), Deny)


def test_a_query_is_no_part_of_other_rules() -> None:
    assert isinstance(judged([READ], "GET /v1/charges", b"limit=3&;%zz"), Allow)


def test_but_for_one_that_would_change_the_method() -> None:
    decision = judged([READ], "GET /v1/charges", b"limit=3&_method=DELETE")
    assert isinstance(decision, Deny)
    assert "_method" in decision.reason
    assert decision.allowed == ("GET /v1/**",)
    listed = scope("listed", ["GET /v1/charges"], query={"_method": Parameter(("GET",))})
    assert judged([READ, listed], "GET /v1/charges", b"_method=GET") == Allow(
        "listed", "GET /v1/charges", "low"
    )
    assert isinstance(judged([READ, listed], "GET /v1/charges", b"_method=PUT"), Deny)
    denied = judged([READ, REFUND], "POST /v1/refunds/1/cancel", b"_method=GET")
    assert isinstance(denied, Deny)
    assert denied.rule == "* /v1/refunds/*/cancel"


def test_gives_away_nothing_of_the_request() -> None:
    decision = judged([REFUND], "POST /v1/refunds/sk_live_secret/cancel")
    assert "sk_live_secret" not in repr(decision)
    assert "sk_live_secret" not in repr(judged([READ], "POST /sk_live_secret"))


def test_offers_what_decides_the_form_of_paths() -> None:
    assert canonical_problem(b"/v1/../x") is not None


SEGMENTS = ["a", "b", "*", "**", "A"]
texts = st.builds(
    lambda method, segments: f"{method} /" + re.sub(r"\*\*(/\*\*)+", "**", "/".join(segments)),
    st.sampled_from(["GET", "POST", "*"]),
    st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=3),
)
some_scopes = st.lists(
    st.tuples(st.lists(texts, min_size=1, max_size=3), st.lists(texts, max_size=2)),
    min_size=1,
    max_size=3,
).map(lambda made: [scope(f"s{index}", *rules) for index, rules in enumerate(made)])
requests = st.tuples(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.lists(st.sampled_from(["a", "b", "c", "A"]), min_size=1, max_size=4),
).map(lambda request: f"{request[0]} /{'/'.join(request[1])}")


def allowed_by(one: ScopeRules, method: str, path: bytes) -> bool:
    """The meaning of one scope, rule by rule."""
    if any(rule.names(method) and rule.denies(path) for rule in one.deny):
        return False
    return any(rule.names(method) and rule.allows(path) for rule in one.allow)


@settings(max_examples=300)
@given(some_scopes, requests)
def test_one_expression_means_what_its_rules_mean(scopes: list[ScopeRules], request: str) -> None:
    method, raw = request.split(" ")
    path = raw.encode()
    allowing = [one.name for one in scopes if allowed_by(one, method, path)]
    decision = judged(scopes, request)
    if isinstance(decision, Allow):
        assert decision.scope == allowing[0]
        (granting,) = [one for one in scopes if one.name == decision.scope]
        assert decision.rule in {
            rule.text for rule in granting.allow if rule.names(method) and rule.allows(path)
        }
    else:
        assert not allowing
        denies = [rule for one in scopes for rule in one.deny]
        matching = [rule.text for rule in denies if rule.names(method) and rule.denies(path)]
        assert decision.rule in matching if matching else decision.rule is None


@given(some_scopes, requests)
def test_fewer_scopes_never_allow_more(scopes: list[ScopeRules], request: str) -> None:
    if isinstance(judged(scopes, request), Deny):
        for count in range(len(scopes)):
            for fewer in combinations(scopes, count):
                assert isinstance(judged(list(fewer), request), Deny)


def test_what_opens_a_websocket_is_never_of_low_risk() -> None:
    for before, after in (("low", "medium"), ("medium", "medium"), ("high", "high")):
        opened = open_ended(Allow("a", "GET /x", before))  # type: ignore[arg-type]
        assert opened == Allow("a", "GET /x", after)  # type: ignore[arg-type]
    assert open_ended(Deny("no")) == Deny("no")
