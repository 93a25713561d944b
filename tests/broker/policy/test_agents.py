from __future__ import annotations

import pytest

from tests.fakes.policies import SMALL, changed, policy, problems

SECOND = (
    "identity_sources:\n"
    "  second: {type: oidc, issuer: https://token.actions.githubusercontent.com}\n"
    "agents: {b: {trust: [{source: second, claims: {a: b}}], scopes: [stripe.read]}}\n"
)


def test_an_agent_keeps_its_trust_apart() -> None:
    small = policy(SMALL)
    (trust,) = small.trust["release-bot"]
    assert trust.source == "actions"
    assert set(trust.conditions) == {"repository_id", "ref"}
    assert small.trust["coder"][0].conditions == {}


def test_two_sources_never_speak_for_one_issuer() -> None:
    assert problems(SMALL, SECOND) == [
        "1.yaml:2:32: identity source 'second' has the same issuer as 'actions' at 0.yaml:2:3"
    ]
    assert problems(SMALL, "identity_sources: {other: {type: local}}") == [
        "1.yaml:1:34: identity source 'other' has the same issuer as 'laptop' at 0.yaml:6:3"
    ]


def test_issuers_that_differ_by_a_slash_are_two() -> None:
    other = SECOND.replace("usercontent.com", "usercontent.com/")
    assert "second" in policy(SMALL, other).identity_sources


def test_only_a_local_source_may_be_trusted_without_claims() -> None:
    text = changed("      - source: laptop\n", "      - source: actions\n")
    assert problems(text) == [
        (
            "0.yaml:32:9: agent 'coder': field 'claims' is missing: without it every identity of "
            "'actions' would be this agent"
        )
    ]


def test_a_source_with_mistakes_is_not_told_as_unknown_too() -> None:
    found = problems(changed("type: oidc", "type: odic"))
    assert len(found) == 1
    assert "did you mean 'oidc'?" in found[0]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("source: laptop", "source: laptops", "unknown identity source 'laptops'; did you mean"),
        ("scopes: [stripe.read]", "scopes: [xyz]", "unknown scope 'xyz'; there are stripe.read, "),
        ("scopes: [stripe.read]", "scopes: [stripe.*]", "a name is up to 64"),
    ],
)
def test_an_unknown_name_is_told(old: str, new: str, problem: str) -> None:
    (found,) = problems(changed(old, new))
    assert problem in found
