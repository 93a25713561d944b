from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.changes import following
from broker.changes.edits import Edit
from broker.changes.following import PolicyFollower
from broker.changes.keeping import KeptPolicies
from broker.errors import StorageError
from broker.storage.base import KeptPolicy
from tests.fakes.admin_bench import ALL, READ, STRIPE

if TYPE_CHECKING:
    from broker.policy.source import Document
    from tests.fakes.admin_bench import AdminBench


async def test_what_another_process_changes_comes_into_force(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    task = asyncio.create_task(admin.follower.follow())
    kept = KeptPolicies(admin.storage.policies, admin.judges)
    await kept.change(
        [Edit(s, name, body, None) for s, name, body in ALL], by="user:a", comment=None, now=2e9
    )
    async with asyncio.timeout(30):
        while "bot" not in admin.policies.current.agents:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    task.cancel()


async def test_nothing_is_read_while_nothing_changes(admin: AdminBench) -> None:
    put: list[tuple[Document, ...]] = []

    async def keep(documents: tuple[Document, ...]) -> None:
        put.append(documents)

    await admin.fill()
    follower = PolicyFollower(admin.storage.policies, keep, print, KeptPolicy(0))
    await follower.catch_up()
    await follower.catch_up()
    assert [len(documents) for documents in put] == [3]


async def test_a_database_that_is_restored_meanwhile_takes_effect_at_the_next_start(
    admin: AdminBench,
) -> None:
    await admin.fill()
    assert (await admin.change({"section": "services", "name": "b", "body": STRIPE})).is_success
    with closing(sqlite3.connect(admin.settings.home / "broker.db")) as database, database:
        database.execute("DROP TRIGGER policy_versions_are_not_deleted")
        database.execute("DELETE FROM policy_versions WHERE number = 2")
        database.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'policy_versions'")
    with pytest.raises(StorageError, match="version 2 of the policy is gone, or not the one"):
        await admin.follower.catch_up()
    assert "b" in admin.policies.current.services


async def test_a_change_that_somebody_has_written_into_the_database_does_not_come_into_force(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    await admin.fill()
    wider = json.dumps([["scopes", "stripe.read", {**READ, "allow": ["* /**"]}]])
    with closing(sqlite3.connect(admin.settings.home / "broker.db")) as database, database:
        database.execute(
            "INSERT INTO policy_versions "
            "SELECT 2, made_at, made_by, comment, ?, digest, digest FROM policy_versions",
            (wider,),
        )
    task = asyncio.create_task(admin.follower.follow())
    async with asyncio.timeout(30):
        while not admin.policies.problems:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    (problem,) = admin.policies.problems
    assert "version 2 of the policy is not what was stored" in problem.message
    assert admin.policies.current.scopes["stripe.read"].allow == ("GET /v1/**",)
    answer = await admin.change({"section": "services", "name": "b", "body": STRIPE})
    assert answer.status_code == 503
    with closing(sqlite3.connect(admin.settings.home / "broker.db")) as database, database:
        database.execute("DROP TRIGGER policy_versions_are_not_deleted")
        database.execute("DELETE FROM policy_versions WHERE number = 2")
        database.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'policy_versions'")
    async with asyncio.timeout(30):
        while admin.policies.problems:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    task.cancel()


@pytest.mark.parametrize("error", [StorageError("disk is gone"), RuntimeError("disk is gone")])
async def test_a_store_that_fails_keeps_the_last_policy_and_is_told_once(
    admin: AdminBench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    failures = 0

    async def fail() -> int:
        nonlocal failures
        failures += 1
        raise error

    await admin.fill()
    monkeypatch.setattr(admin.storage.policies, "number", fail)
    task = asyncio.create_task(admin.follower.follow())
    async with asyncio.timeout(30):
        while failures < 3:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    task.cancel()
    assert len(caplog.records) == 1
    assert "bot" in admin.policies.current.agents
