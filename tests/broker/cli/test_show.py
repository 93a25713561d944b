from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


@pytest.fixture
def stripe(broker: Commands) -> Commands:
    """A home with Stripe in it."""
    broker.ok("add", "stripe", "--secret-stdin", stdin="k\n")
    return broker


def test_services(stripe: Commands) -> None:
    (service,) = stripe.ok("services", "--json").data
    assert service == {
        "name": "stripe",
        "provider": "http_api",
        "upstream": "https://api.stripe.com",
        "timeouts": {"connect": 10.0, "first_byte": 120.0, "idle": 120.0},
        "secrets": ["embedded:stripe"],
        "scopes": ["stripe.charge", "stripe.customers", "stripe.read", "stripe.refund"],
        "base_url": "http://127.0.0.1:8701/stripe",
    }
    assert "https://api.stripe.com" in stripe.ok("services").out


def test_scopes(stripe: Commands) -> None:
    scopes = {item["name"]: item for item in stripe.ok("scopes", "--json").data}
    refund = scopes["stripe.refund"]
    assert refund["deny"] == ["* /v1/refunds/*/cancel"]
    assert (refund["risk"], refund["reason_required"], refund["max_ttl"]) == ("high", True, 900)
    assert scopes["stripe.read"]["agents"] == ["my-agent"]
    text = stripe.ok("scopes").out
    assert "risk high, reason required, at most 900s" in text
    assert "and 2 more" in text


def test_scopes_say_whom_requests_may_name(stripe: Commands) -> None:
    (place,) = [one for one in stripe.files() if one.name == "stripe.yaml"]
    allow = '    allow: ["GET /v1/**", "GET /v2/**"]\n'
    assert allow in place.read_text()
    listed = allow + "    on_behalf: {Stripe-Account: acct_1}\n"
    place.write_text(place.read_text().replace(allow, listed, 1))
    found = [item["on_behalf"] for item in stripe.ok("scopes", "--json").data]
    assert sorted(found) == [[], [], [], ["stripe-account"]]
    assert "on behalf of others by stripe-account" in stripe.ok("scopes").out


def test_scopes_of_one_agent(stripe: Commands) -> None:
    (scope,) = stripe.ok("scopes", "--agent", "my-agent", "--json").data
    assert scope["name"] == "stripe.read"
    assert "did you mean 'my-agent'" in stripe.refused("scopes", "--agent", "my-agnt")


def test_an_address_with_port_and_path(broker: Commands) -> None:
    url = "https://api.acme.example:8443/v2"
    broker.ok("add", "acme", "--base-url", url, "--secret-stdin", stdin="k\n")
    assert broker.ok("services", "--json").data[0]["upstream"] == url


def test_with_nothing_to_show_it_says_what_to_do(broker: Commands) -> None:
    assert "broker add" in broker.ok("services").out
    assert "broker add" in broker.ok("scopes").out


def test_a_policy_that_does_not_load_is_told_with_its_place(broker: Commands) -> None:
    path = broker.home / "policies/sources.yaml"
    path.write_text("services:\n  a: {provider: http_apy}\n")
    assert f"{path}:2" in broker.refused("services")
