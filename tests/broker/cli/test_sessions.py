from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.home import open_storage
from broker.cli.sessions import _duration
from broker.settings import load_settings
from broker.storage.base import Use
from tests.contracts.revocations import child, grant

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


@pytest.fixture
def used(broker: Commands) -> Commands:
    """A home with two live grants, one that has expired, and one that was revoked."""
    asyncio.run(_fill(broker))
    broker.ok("revoke", "revoked")
    return broker


async def _fill(broker: Commands) -> None:
    now = int(time.time())
    times: dict[str, Any] = {"issued_at": now - 30, "expires_at": now + 900}
    root = grant("root", task="pay \x1b[31m invoices " + "x" * 80, reason="asked to", **times)
    grants = (
        root,
        child("child", root, actor={"sub": "helper"}, client_id="helper", scopes=("a.read",)),
        grant("over", issued_at=now - 60, expires_at=now - 1),
        grant("revoked", "mallory", **times),
    )
    storage = open_storage(load_settings(broker.home))
    for one in grants:
        await storage.save_grant(one)
    await storage.note_use({"root": Use(7, now - 5.0)})
    await storage.close()


def test_grants_are_listed_though_the_kept_policy_is_damaged(used: Commands) -> None:
    database = used.home / "data" / "broker.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO policy_versions VALUES (1, 0, 'x', NULL, '[', '', 'abc')")
    assert {one["grant"] for one in used.ok("sessions", "--json").data} == {"root", "child"}


def test_live_grants_with_their_use(used: Commands) -> None:
    root, helped = sorted(used.ok("sessions", "--json").data, key=lambda one: -one["requests"])
    assert (root["grant"], root["agent"], root["acting"], root["parent"]) == (
        "root",
        "bot",
        [],
        None,
    )
    assert root["scopes"] == ["a.read", "a.write"]
    assert root["reason"] == "asked to"
    assert 880 <= root["left"] <= 900
    assert 30 <= root["age"] <= 50
    assert (root["requests"], root["used_at"] is None) == (7, False)
    assert (helped["grant"], helped["acting"], helped["parent"]) == ("child", ["helper"], "root")
    assert (helped["requests"], helped["used_at"]) == (0, None)


def test_for_people(used: Commands) -> None:
    shown = used.ok("sessions").out
    assert "helper for bot" in shown
    assert "s ago" in shown
    assert "\x1b[31m" not in shown
    assert "x" * 60 not in shown
    assert "broker revoke" in shown
    assert "mallory" not in shown


@pytest.mark.parametrize(
    ("agent", "count"), [("bot", 2), ("helper", 1), ("mallory", 0), ("nobody", 0)]
)
def test_of_one_agent(used: Commands, agent: str, count: int) -> None:
    assert len(used.ok("sessions", "--agent", agent, "--json").data) == count


def test_none(broker: Commands) -> None:
    assert "No grant is live." in broker.ok("sessions").out
    assert "No grant of x is live." in broker.ok("sessions", "--agent", "x").out
    assert broker.ok("sessions", "--json").data == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (9000, "2h30m")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert _duration(seconds) == shown


def test_what_is_used_of_a_total(used: Commands) -> None:
    (used.home / "policies" / "more.yaml").write_text(TOTALS)
    storage = open_storage(load_settings(used.home))

    async def count() -> None:
        for _ in range(3):
            await storage.totals.count([("scope/a.read/bot/root", 5)], time.time() + 900)
        await storage.close()

    asyncio.run(count())
    totals = {one["grant"]: one["totals"] for one in used.ok("sessions", "--json").data}
    expected = {"scope a.read: total 5": {"used": 3, "most": 5}}
    assert totals == {"root": expected, "child": expected}
    assert "7, 3 of 5" in used.ok("sessions").out
    (used.home / "policies" / "more.yaml").write_text("no policy")
    assert all(one["totals"] == {} for one in used.ok("sessions", "--json").data)


TOTALS = """
services:
  a:
    provider: http_api
    base_url: https://a.example
    credential: {type: bearer, secret: "env:A"}
scopes:
  a.read: {service: a, allow: ["GET /**"], limits: {total: 5}}
"""
