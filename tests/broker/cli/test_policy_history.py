from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.admin import judges
from broker.app.home import open_storage
from broker.app.policies import home_policy
from broker.changes.edits import Edit
from broker.changes.keeping import KeptPolicies
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.settings import load_settings
from tests.fakes.admin_bench import BOT, READ, STRIPE

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands

SERVICE = {**STRIPE, "credential": {"type": "bearer", "secret": "embedded:stripe"}}


def keep(broker: Commands, *edits: Edit, comment: str | None = None) -> None:
    """Change the policy as the admin API does."""
    settings = load_settings(broker.home, {})

    async def change() -> None:
        storage = open_storage(settings)
        kept = KeptPolicies(storage.policies, judges(settings))
        await kept.change(edits, by="admin:ci", comment=comment, now=1_750_000_000)
        await storage.close()

    asyncio.run(change())


@pytest.fixture
def filled(broker: Commands) -> Commands:
    keep(broker, Edit("services", "stripe", SERVICE, None), comment="first")
    keep(broker, Edit("scopes", "stripe.read", READ, None), Edit("agents", "bot", BOT, None))
    return broker


def test_history_says_when_by_whom_what_and_why(filled: Commands) -> None:
    newest, oldest = filled.ok("policy", "history").out.splitlines()[1:]
    assert newest.split("  ")[0].strip() == "2"
    assert "set scopes/stripe.read, set agents/bot" in newest
    assert "2025-06-15T15:06:40Z  admin:ci  set services/stripe" in oldest
    assert oldest.endswith("first")
    data = filled.ok("policy", "history", "--json", "-n", "1").data
    assert [(one["version"], one["made_by"]) for one in data] == [(2, "admin:ci")]
    assert data[0]["edits"][0]["body"] == READ


def test_no_history_is_said(broker: Commands) -> None:
    assert "all policy is in files" in broker.ok("policy", "history").out


def test_rollback_is_asked_for_made_and_recorded(filled: Commands) -> None:
    assert "say --yes" in filled.refused("policy", "rollback", "1")
    out = filled.ok("policy", "rollback", "1", "--yes", "--reason", "too much").out
    assert "Version 3 is as version 1" in out
    assert "nothing was changed" in filled.ok("policy", "rollback", "1", "--yes").out
    assert "no version 9" in filled.refused("policy", "rollback", "9", "--yes")
    newest = filled.ok("policy", "history", "--json").data[0]
    assert newest["comment"] == "rollback to version 1: too much"
    assert newest["made_by"].startswith("user:")
    records = [one for one in filled.ok("logs").out.splitlines() if "policy.change" in one]
    assert ["OK" in one for one in records] == [True, True, False]
    assert "version 3, sha256:" in records[0]
    assert set(home_policy(load_settings(filled.home, {})).services) == {"stripe"}


def exported(broker: Commands, *options: str) -> str:
    return broker.ok("policy", "export", *options).out


def test_an_export_loads_to_the_same_policy(filled: Commands) -> None:
    text = exported(filled)
    policy = home_policy(load_settings(filled.home, {}))
    assert load_policy([Document("export.yaml", text)]).version == policy.version
    assert text.startswith(f"# {policy.version}\n")
    assert "  # version 1, 2025-06-15T15:06:40Z, admin:ci: first\n  stripe:\n" in text
    assert "sources.yaml:" in text
    data: dict[str, Any] = filled.ok("policy", "export", "--json").data
    assert (data["policy_version"], data["version"]) == (policy.version, 2)
    assert data["scopes"] == {"stripe.read": READ}


def test_an_export_of_the_api_alone_can_become_a_file(filled: Commands) -> None:
    before = home_policy(load_settings(filled.home, {})).version
    text = exported(filled, "--api-only")
    assert "local: {type: local}" not in text
    filled.ok("policy", "rollback", "0", "--yes")
    (filled.home / "policies" / "moved.yaml").write_text(text)
    assert home_policy(load_settings(filled.home, {})).version == before


def test_check_and_the_lists_include_what_the_api_keeps(filled: Commands) -> None:
    assert "1 service, 1 scope, 1 agent" in filled.ok("policy", "check").out
    assert "stripe.read" in filled.ok("scopes").out
    (filled.home / "policies" / "twice.yaml").write_text("services: {stripe: {}}\n")
    told = filled.run("policy", "check").out
    assert "services.stripe is defined twice: here and at" in told
    assert "api:services/stripe:" in told
    assert str(filled.home / "policies" / "twice.yaml") in told


def test_add_does_not_define_twice_what_the_api_keeps(filled: Commands) -> None:
    refused = filled.refused(
        "add", "stripe", "--agent", "bot", "--secret-stdin", stdin="sk_test_1\n"
    )
    assert "defined twice" in refused
