from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model import Deny
from broker.policy.source import Document, read
from broker.policy.templates import (
    ConstraintTemplate,
    Template,
    claims_named,
    parse_templates,
    template_values,
)
from tests.fakes.policies import CLOUD_SCOPE, CloudScope, policy, problems

if TYPE_CHECKING:
    from broker.errors import Problem


def parsed(text: str) -> ConstraintTemplate:
    found: list[Problem] = []
    (node,) = read(Document("a.yaml", text), found)
    template = parse_templates(CloudScope, node, "scope 'x'", found)
    assert found == []
    return template


VALUES = {
    "agent": "bot",
    "task": "t-1",
    "grant.jti": "j",
    "claims.repository": "acme/shop",
    "claims.id": "42",
}


def test_values_stand_where_their_names_stood() -> None:
    template = parsed(
        'repositories: ["{claims.repository}", "x-{agent}-{task}"]\n'
        'project: "{claims.id}"\n'
        'tags: {grant: "{grant.jti}"}\n'
        'policy: [{resources: ["{agent}", plain]}]\n'
    )
    assert template.names == frozenset(VALUES)
    filled = template.fill(VALUES)
    assert isinstance(filled, CloudScope)
    assert filled.repositories == ("acme/shop", "x-bot-t-1")
    assert filled.project == "42"
    assert filled.tags == {"grant": "j"}
    assert filled.policy[0].resources == ("bot", "plain")


def test_doubled_braces_are_braces() -> None:
    filled = parsed('tags: {a: "{{agent}} {agent}"}').fill(VALUES)
    assert isinstance(filled, CloudScope)
    assert filled.tags == {"a": "{agent} bot"}
    assert parsed('tags: {a: "{{x}}"}').names == frozenset()


def test_a_text_without_templates_stays_as_it_is() -> None:
    assert parsed('comment: "{not one}, {}"').names == frozenset()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('comment: "for {agent}"', ("0.yaml:7:14: scope 'cloud.use', comment: this text takes no "
         "templates")),
        ('repositories: ["{agnet}"]', ("0.yaml:7:20: scope 'cloud.use', repositories: '{agnet}' "
         "is no template; did you mean 'agent'?; '{{' stands for a brace")),
        ('repositories: ["{claims}"]', "is no template"),
        ('repositories: ["{claims.}"]', "is no template"),
        ('repositories: ["{grant.exp}"]', "is no template; did you mean 'grant.jti'?"),
        ('repositories: ["{ agent }"]', "is no template"),
        ('repositories: ["{agent"]', "'{' is no template"),
        ('repositories: ["agent}"]', "'}' is no template"),
        ('repositories: ["${aws:x}"]', "'{aws:x}' is no template"),
        ('policy: [{resources: ["{x}"]}]', "scope 'cloud.use', policy, resources: '{x}' is no"),
    ],
)  # fmt: skip
def test_what_is_no_template_or_has_no_place_there_fails_the_load(line: str, problem: str) -> None:
    (found,) = problems(f"{CLOUD_SCOPE}    {line}\n")
    assert problem in found


def test_rules_take_none() -> None:
    assert problems(f"{CLOUD_SCOPE}    allow: ['GET /{{agent}}']\n")[0].endswith(
        "a rule takes no templates; write '*' for a segment that varies"
    )


def test_all_else_is_checked_at_load_though_values_come_later() -> None:
    assert "cloud.use" in policy(f'{CLOUD_SCOPE}    project: "{{claims.id}}"\n').scopes
    (found,) = problems(f'{CLOUD_SCOPE}    project: "x-{{claims.id}}"\n')
    assert "scope 'cloud.use', project" in found


def test_the_constraints_of_such_a_scope_are_no_constraints_yet() -> None:
    scope = policy(f'{CLOUD_SCOPE}    project: "{{claims.id}}"\n').scopes["cloud.use"]
    assert isinstance(scope.constraints, ConstraintTemplate)


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "a*", "a?", "${a}", "a,b", "a\n", "\u0430", "..", "a..b", "a" * 257]
)
def test_a_value_outside_the_alphabet_is_a_denial(value: str) -> None:
    denial = parsed('tags: {a: "{agent}"}').fill({"agent": value})
    assert isinstance(denial, Deny)
    assert "{agent}" in denial.reason
    assert len(value) < 4 or value not in denial.reason


def test_an_absent_value_is_a_denial() -> None:
    denial = parsed('tags: {a: "{task}"}').fill({"agent": "bot"})
    assert isinstance(denial, Deny)
    assert denial.reason == "it needs {task}, and there is none"


def test_what_the_provider_refuses_is_a_denial() -> None:
    denial = parsed('project: "{claims.id}"').fill({"claims.id": "12345678"})
    assert isinstance(denial, Deny)
    assert "1234" not in denial.reason


def test_values_are_text_and_whole_numbers() -> None:
    claims: dict[str, Any] = {
        "text": "a", "number": 7, "yes": True, "none": None, "list": ["a"], "float": 1.5,
        "deep.er": {"name": "n"},
    }  # fmt: skip
    names = frozenset(f"claims.{name}" for name in [*claims, "absent", "deep.er.name"])
    values = template_values(names, claims, agent="bot", task=None, grant=None)
    assert values == {"claims.text": "a", "claims.number": "7", "claims.deep.er.name": "n"}
    some = template_values(frozenset({"agent", "task"}), {}, agent="bot", task="t", grant=None)
    assert some == {"agent": "bot", "task": "t"}


def test_knows_which_claims_are_needed() -> None:
    names = frozenset({"agent", "claims.a", "claims.kubernetes.io.namespace"})
    assert claims_named(names) == frozenset({"a", "kubernetes.io.namespace"})


@given(st.text(max_size=12), st.sampled_from(["A-Za-z0-9._-", "0-9", "a-z/"]))
def test_nothing_gets_in_but_the_alphabet(value: str, alphabet: str) -> None:
    template = Template(("<", ">"), ("agent",), alphabet)
    try:
        filled = template.fill({"agent": value})
    except ValueError:
        assert not re.fullmatch(f"[{alphabet}]+", value) or ".." in value
    else:
        assert filled == f"<{value}>"
        assert re.fullmatch(f"[{alphabet}]+", value)
        assert ".." not in value
