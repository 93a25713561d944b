from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.home import open_storage
from broker.revoked import Revoked
from broker.settings import load_settings
from tests.contracts.revocations import child, grant

if TYPE_CHECKING:
    from broker.model import Grant, Revocation
    from broker.storage.sqlite import SqliteStorage
    from tests.broker.cli.conftest import Commands


def _grants() -> tuple[Grant, ...]:
    now = int(time.time())
    times = {"issued_at": now - 30, "expires_at": now + 900}
    root = grant("r00t", "my-agent", task="pay", reason="asked to", **times)
    other = grant("0ther", "ci", scopes=("b.read",), **times)
    helped = child("he1ped", root, scopes=("a.read",), actor={"sub": "ci"}, client_id="ci")
    return root, other, helped


def _with_store(broker: Commands, work: Any) -> Any:
    async def run() -> Any:
        storage: SqliteStorage = open_storage(load_settings(broker.home))
        try:
            return await work(storage)
        finally:
            await storage.close()

    return asyncio.run(run())


@pytest.fixture
def used(broker: Commands) -> Commands:
    """A home with three live grants."""

    async def save(storage: SqliteStorage) -> None:
        for one in _grants():
            await storage.save_grant(one)

    _with_store(broker, save)
    return broker


def _revocations(broker: Commands) -> tuple[Revocation, ...]:
    async def read(storage: SqliteStorage) -> Any:
        return await storage.revocations.since(0)

    found: tuple[Revocation, ...] = _with_store(broker, read)
    return found


def _live(broker: Commands) -> set[str]:
    return {one["grant"] for one in broker.ok("sessions", "--json").data}


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("r00t",), {"0ther"}),
        (("he1ped",), {"r00t", "0ther"}),
        (("--agent", "my-agent"), {"0ther"}),
        (("--agent", "ci"), {"r00t"}),
        (("--scope", "a.write"), {"0ther"}),
        (("--scope", "b.read"), {"r00t", "he1ped"}),
        (("--all", "--yes"), set()),
    ],
)
def test_what_each_ends(used: Commands, arguments: tuple[str, ...], left: set[str]) -> None:
    answer = used.ok("revoke", *arguments, "--reason", "lost laptop", "--json").data
    ended = {"r00t", "0ther", "he1ped"} - left
    assert {one["grant"] for one in answer["grants"]} == ended
    assert _live(used) == left
    known = Revoked(_revocations(used))
    assert {one.jti for one in _grants() if known.covers(one)} == ended
    assert {one.reason for one in _revocations(used)} == {"lost laptop"}


def test_it_is_on_record_before_and_after(used: Commands) -> None:
    used.ok("revoke", "--agent", "my-agent", "--reason", "lost laptop")
    logs = used.ok("logs", "--json").out.splitlines()
    intent, outcome = (line for line in logs if "grant.revoke" in line)
    assert '"phase":"intent"' in intent.replace(" ", "")
    assert "ended 2 grants, 0 leases" in outcome
    assert "lost laptop" in intent
    assert "user:" in intent
    used.ok("audit", "verify")


def test_it_says_what_it_did_and_what_comes_next(used: Commands) -> None:
    told = used.ok("revoke", "r00t").out
    assert "Revoked: 2 live grant(s)." in told
    assert "within a second" in told
    assert "broker revoke --agent NAME" in told
    again = used.ok("revoke", "r00t").out
    assert "has ended already" in again
    told = used.ok("revoke", "--agent", "ci").out
    assert "Revoked: 1 live grant(s) of agent ci." in told
    assert "can ask for new task tokens" in told
    assert "broker agents unenroll ci" in told
    assert str(used.home / "policies") in told
    assert "There was no live grant;" in used.ok("revoke", "--all", "--yes").out


def test_what_is_asked_for_afterwards_is_good(used: Commands) -> None:
    used.ok("revoke", "--agent", "my-agent")
    later = replace(_grants()[0], jti="1ater", issued_at=int(time.time()))

    async def save(storage: SqliteStorage) -> Any:
        return await storage.save_grant(later)

    assert _with_store(used, save) == "saved"
    assert "1ater" in _live(used)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say which"),
        (("r00t", "--agent", "ci"), "name one thing"),
        (("--agent", "ci", "--all"), "name one thing"),
        (("--agent", ""), "name one thing"),
        (("r00",), r"no grant 'r00'; did you mean 'r00t'"),
        (("--agent", "my-agnet"), r"knows agent 'my-agnet'; did you mean 'my-agent'"),
        (("--scope", "a.raed"), r"knows scope 'a.raed'; did you mean 'a.read'"),
        (("--all",), "say --yes"),
        (("r00t", "--reason", "x" * 501), "at most 500"),
    ],
)
def test_mistakes_revoke_nothing(used: Commands, arguments: tuple[str, ...], told: str) -> None:
    assert re.search(told, used.refused("revoke", *arguments))
    assert _revocations(used) == ()
    assert len(_live(used)) == 3
    assert "grant.revoke" not in used.ok("logs", "--json").out


def test_an_agent_of_the_policy_can_be_revoked_before_its_first_grant(broker: Commands) -> None:
    broker.ok("add", "stripe", "--secret-stdin", stdin="k\n")
    assert broker.ok("revoke", "--agent", "my-agent", "--json").data["grants"] == []
    assert broker.ok("revoke", "--scope", "stripe.read", "--json").data["grants"] == []
    assert [one.kind for one in _revocations(broker)] == ["agent", "scope"]


def test_a_policy_that_does_not_load_does_not_stop_it(used: Commands) -> None:
    (used.home / "policies" / "broken.yaml").write_text("services: [")
    used.ok("revoke", "--agent", "my-agent")
    assert _live(used) == {"0ther"}


def test_c3_it_makes_good_a_database_that_has_forgotten(used: Commands) -> None:
    used.ok("revoke", "he1ped")
    (used.home / "data" / "broker.revocations").write_text("7\n")
    assert "broker revoke --all" in used.refused("revoke", "r00t")
    used.ok("revoke", "--all", "--yes")
    assert _live(used) == set()
    assert _revocations(used)[-1].number > 7


def test_without_a_home_it_says_so(bare: Commands) -> None:
    assert "broker init" in bare.refused("revoke", "--all", "--yes")
    assert "broker init" in bare.refused("sessions")
