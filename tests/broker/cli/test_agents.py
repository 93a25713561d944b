from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


@pytest.fixture
def stripe(broker: Commands) -> Commands:
    """A home whose only agent, my-agent, may read Stripe."""
    broker.ok("add", "stripe", "--secret-stdin", stdin="k\n")
    return broker


def scopes(broker: Commands, agent: str) -> list[str]:
    agents = broker.ok("agents", "--json").data
    return next(list(item["scopes"]) for item in agents if item["name"] == agent)


def test_list(stripe: Commands) -> None:
    stripe.ok("agents", "enroll", "idle")
    (idle, mine) = sorted(stripe.ok("agents", "--json").data, key=lambda item: str(item["name"]))
    assert (idle["name"], idle["scopes"], len(idle["enrolled_keys"])) == ("idle", [], 1)
    assert (mine["name"], mine["scopes"], len(mine["enrolled_keys"])) == (
        "my-agent",
        ["stripe.read"],
        1,
    )
    assert "none yet" in stripe.ok("agents").out


def test_enroll_with_scopes_makes_an_agent_that_its_own_key_proves(stripe: Commands) -> None:
    ran = stripe.ok("agents", "enroll", "ci", "--scope", "stripe.read", "--scope", "stripe.refund")
    document = yaml.safe_load((stripe.home / "policies/agents/ci.yaml").read_text())
    assert document["agents"]["ci"] == {
        "trust": [{"source": "local", "claims": {"sub": "ci"}}],
        "scopes": ["stripe.read", "stripe.refund"],
    }
    assert "broker token --agent ci --scope stripe.read" in ran.out
    assert "PRIVATE KEY" in (stripe.home / "agents/ci.pem").read_text()
    assert "PRIVATE KEY" not in ran.out


def test_enroll_twice_is_refused_and_keeps_the_key(broker: Commands) -> None:
    before = broker.files()
    assert "is not overwritten" in broker.refused("agents", "enroll", "my-agent")
    assert broker.files() == before


def test_enroll_for_a_scope_that_is_not_there_makes_no_key(broker: Commands) -> None:
    told = broker.refused("agents", "enroll", "ci", "--scope", "stripe.read")
    assert "stripe.read" in told
    assert not (broker.home / "agents/ci.pem").exists()
    assert not (broker.home / "policies/agents").exists()


def test_grant(stripe: Commands) -> None:
    stripe.ok("agents", "grant", "my-agent", "stripe.refund", "stripe.charge")
    assert scopes(stripe, "my-agent") == ["stripe.read", "stripe.refund", "stripe.charge"]
    again = stripe.ok("agents", "grant", "my-agent", "stripe.refund")
    assert "could ask already" in again.out


def test_grant_of_an_unknown_scope_changes_nothing(stripe: Commands) -> None:
    before = stripe.files()
    assert "stripe.refnd" in stripe.refused("agents", "grant", "my-agent", "stripe.refnd")
    assert stripe.files() == before


def test_unenroll(broker: Commands) -> None:
    broker.ok("agents", "unenroll", "my-agent")
    assert broker.ok("agents", "--json").data == []
    assert not (broker.home / "agents/my-agent.pem").exists()
    assert "no key is enrolled" in broker.refused("agents", "unenroll", "my-agent")


@pytest.mark.parametrize("name", ["../../etc/passwd", "A", "a b"])
def test_a_name_is_no_path(broker: Commands, name: str) -> None:
    before = broker.files()
    for arguments in (("enroll", name), ("grant", name, "stripe.read")):
        assert "cannot be the name of an agent" in broker.refused("agents", *arguments)
    broker.refused("agents", "unenroll", name)
    assert broker.files() == before


def test_without_agents_it_says_how_to_enrol_one(broker: Commands) -> None:
    broker.ok("agents", "unenroll", "my-agent")
    assert "broker agents enroll" in broker.refused("add", "stripe", "--secret-stdin", stdin="k\n")
    assert "broker agents enroll" in broker.refused("token", "--scope", "stripe.read")
    assert "No agents" in broker.ok("agents").out
