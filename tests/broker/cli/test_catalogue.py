from __future__ import annotations

import pytest
import yaml

from broker.cli import catalogue
from broker.errors import ConfigurationError, PolicyError
from broker.policy.loader import load_policy
from broker.policy.source import Document


def test_names_are_sorted_and_many() -> None:
    names = catalogue.names()
    assert list(names) == sorted(names)
    assert len(names) >= 20


def test_an_unknown_name_meets_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'stripe'.*It has:.*github"):
        catalogue.load("strip")


def test_a_parameter_that_is_missing_or_malformed_is_named() -> None:
    jira = catalogue.load("jira")
    references = {"token": "embedded:jira"}
    with pytest.raises(ConfigurationError, match="site is None; expected something like acme"):
        jira.policy("jira", {"email": "bot@acme.example"}, references)
    with pytest.raises(ConfigurationError, match=r"site is 'evil\.com/#'"):
        jira.policy("jira", {"email": "bot@acme.example", "site": "evil.com/#"}, references)


def test_fill_leaves_unknown_placeholders_alone() -> None:
    assert catalogue.fill("<a> <b> <A>", {"a": "1"}) == "1 <b> <A>"


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("bearer", {"type": "bearer"}),
        ("header:X-Api-Key", {"type": "header", "name": "X-Api-Key"}),
        ("basic:api", {"type": "basic", "username": "api"}),
        ("query:api_key", {"type": "query", "name": "api_key"}),
        ("cookie:session", {"type": "cookie", "name": "session"}),
    ],
)
def test_any_api(credential: str, expected: dict[str, str]) -> None:
    entry = catalogue.any_api("acme", "https://api.acme.example/v2", credential)
    text = entry.policy("acme", {}, {"key": "embedded:acme"})
    service = yaml.safe_load(text)["services"]["acme"]
    assert service["credential"] == expected | {"secret": "embedded:acme"}
    policy = load_policy([Document("acme.yaml", text)])
    assert set(policy.scopes) == {"acme.read", "acme.write"}
    assert policy.services["acme"].upstream is not None


@pytest.mark.parametrize("credential", ["", "beerer", "header", "header:", "bearer:x", "basic"])
def test_any_api_refuses_what_it_does_not_know(credential: str) -> None:
    with pytest.raises(ConfigurationError, match="expected bearer, header:X-Api-Key"):
        catalogue.any_api("acme", "https://api.acme.example", credential)


def test_any_api_takes_exceptions_only_as_they_are_named() -> None:
    plain = "http://10.0.0.1"
    text = catalogue.any_api("acme", plain, "bearer").policy("acme", {}, {"key": "embedded:a"})
    with pytest.raises(PolicyError, match="plain http"):
        load_policy([Document("acme.yaml", text)])
    entry = catalogue.any_api("acme", plain, "bearer").reached(
        {"insecure_http": True, "allow_private": True}
    )
    policy = load_policy([Document("acme.yaml", entry.policy("acme", {}, {"key": "embedded:a"}))])
    upstream = policy.services["acme"].upstream
    assert upstream is not None
    assert upstream.insecure_http
    assert upstream.allow_private


@pytest.mark.parametrize("name", catalogue.names())
def test_how_any_service_is_reached_can_be_said(name: str) -> None:
    entry = catalogue.load(name)
    told: dict[str, str | bool] = {"allow_private": True, "ca_file": '/etc/"<name>.pem'}
    document = yaml.safe_load(entry.reached(told).template)
    for service in document["services"].values():
        assert {key: service[key] for key in told} == told
        for key in told:
            del service[key]
    assert document == yaml.safe_load(entry.template)


@pytest.mark.parametrize(
    "hostile",
    ['https://a.example", x: "', "https://a.example\nscopes: {}", "https://{a}", "https://<name>"],
)
def test_any_api_cannot_be_made_to_write_other_policy(hostile: str) -> None:
    entry = catalogue.any_api("acme", hostile, f"header:{hostile}")
    text = entry.policy("acme", {}, {"key": "embedded:acme"})
    assert yaml.safe_load(text)["services"]["acme"]["base_url"] == hostile
    with pytest.raises(PolicyError):
        load_policy([Document("acme.yaml", text)])
