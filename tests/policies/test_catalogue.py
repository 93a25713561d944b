"""Each service of the catalogue loads, and its scopes allow and deny what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.cli import catalogue
from broker.model import Allow
from broker.policy.canonical import canonical_problem
from broker.policy.loader import load_policy
from broker.policy.source import Document

if TYPE_CHECKING:
    from broker.policy.engine import Policy

NAMES = catalogue.names()
ASKED_FOR = {
    "stripe", "github", "gitlab", "openai", "anthropic", "slack", "notion", "linear", "jira",
    "sendgrid", "twilio", "shopify", "meta-ads", "supabase", "cloudflare", "vercel", "datadog",
    "sentry", "pagerduty", "huggingface",
}  # fmt: skip
MESSAGES_MONEY_AND_DEPLOYMENTS = {
    "stripe.charge", "stripe.refund", "slack.send", "discord.send", "sendgrid.send",
    "resend.send", "twilio.send", "twilio.call", "zendesk.reply", "vercel.deploy",
    "cloudflare.deploy", "gitlab.pipelines", "github.merge", "pagerduty.page",
    "meta-ads.create", "meta-ads.update",
}  # fmt: skip


def parameters(entry: catalogue.Entry) -> dict[str, str]:
    return {name: parameter.example for name, parameter in entry.parameters.items()}


def policy_of(entry: catalogue.Entry, service: str) -> Policy:
    references = {field: f"embedded:{service}-{field}".replace("_", "-") for field in entry.secrets}
    text = entry.policy(service, parameters(entry), references)
    agent = (
        "identity_sources: {local: {type: local}}\n"
        "agents: {tester: {trust: [{source: local, claims: {sub: tester}}], scopes: ["
        + ", ".join(f"{service}.{scope}" for scope in entry.grant)
        + "]}}"
    )
    return load_policy([Document(f"{service}.yaml", text), Document("agent.yaml", agent)])


def test_has_what_agents_use() -> None:
    assert set(NAMES) >= ASKED_FOR


@pytest.mark.parametrize("name", NAMES)
def test_loads_under_its_own_and_another_name(name: str) -> None:
    entry = catalogue.load(name)
    for service in (name, "another"):
        policy = policy_of(entry, service)
        assert set(policy.services) == {service}
        assert all(scope.startswith(f"{service}.") for scope in policy.scopes)
        upstream = policy.services[service].upstream
        assert upstream is not None
        assert upstream.scheme == "https"
        assert not upstream.allow_private


@pytest.mark.parametrize("name", NAMES)
def test_asks_for_each_secret_that_its_policy_names(name: str) -> None:
    entry = catalogue.load(name)
    service = policy_of(entry, name).services[name]
    assert len(service.plugin.secret_references(service.config)) == len(entry.secrets)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_examples_have_the_form_that_is_asked_for(name: str) -> None:
    for parameter in catalogue.load(name).parameters.values():
        assert parameter.accepts(parameter.example)
        assert parameter.default is None or parameter.accepts(parameter.default)
        for hostile in ("a.evil.com/#", "x y", '"', "\n", "../..", "*", "{agent}", "é"):
            assert not parameter.accepts(hostile)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_agent_gets_unless_told_otherwise_is_not_high_risk_where_there_is_a_choice(
    name: str,
) -> None:
    entry = catalogue.load(name)
    policy = policy_of(entry, name)
    for scope in entry.grant:
        assert policy.scopes[f"{name}.{scope}"].risk != "high" or len(policy.scopes) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_scope_says_what_it_is_for_and_has_an_example_that_it_allows(name: str) -> None:
    entry = catalogue.load(name)
    shown = {f"{name}.{e.scope}" for e in entry.examples if e.expect == "allow"}
    for scope in policy_of(entry, name).scopes.values():
        assert scope.description
        assert scope.name in shown


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, example) for name in NAMES for example in catalogue.load(name).examples],
    ids=lambda value: value if isinstance(value, str) else f"{value.scope}:{value.request}",
)
def test_examples(name: str, example: catalogue.Example) -> None:
    entry = catalogue.load(name)
    method, _, path = catalogue.fill(example.request, parameters(entry)).partition(" ")
    assert canonical_problem(path.encode()) is None
    authorizer = policy_of(entry, name).authorizer((f"{name}.{example.scope}",), name)
    decision = authorizer.judge(method.encode(), path.encode(), b"")
    assert isinstance(decision, Allow) is (example.expect == "allow")


def test_messages_money_and_deployments_are_high_risk() -> None:
    for scope in MESSAGES_MONEY_AND_DEPLOYMENTS:
        name = scope.rpartition(".")[0]
        assert policy_of(catalogue.load(name), name).scopes[scope].risk == "high"


def test_no_warning_is_left_but_those_of_scopes_nobody_holds() -> None:
    for name in NAMES:
        for warning in policy_of(catalogue.load(name), name).warnings:
            assert "agent" in warning.message, f"{name}: {warning}"
