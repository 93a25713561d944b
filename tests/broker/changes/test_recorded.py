from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.changes.edits import Edit
from broker.changes.keeping import KeptPolicies
from broker.changes.recorded import RecordedChanges, told
from broker.errors import AuditUnavailable, PolicyConflict, PolicyError, StorageError
from tests.fakes.admin_bench import ALL, READ, STRIPE
from tests.fakes.trail import SlowTrail

if TYPE_CHECKING:
    from tests.fakes.admin_bench import AdminBench

WHO: dict[str, Any] = {"by": "admin:terraform", "comment": "why", "source": "192.0.2.1"}


def changes(admin: AdminBench) -> RecordedChanges:
    kept = KeptPolicies(admin.storage.policies, admin.judges)
    return RecordedChanges(kept, admin.trail, admin.follower.catch_up, clock=lambda: 2e9)


def edits(*entries: tuple[str, str, Any]) -> list[Edit]:
    return [Edit(section, name, body, None) for section, name, body in entries]


async def test_intent_then_outcome_with_who_what_why_and_which_version(admin: AdminBench) -> None:
    changed = await changes(admin).change(edits(*ALL), **WHO)
    intent, outcome = admin.trail.records
    assert intent.operation == outcome.operation
    for record in (intent, outcome):
        assert (record.action, record.subject) == ("policy.change", "admin:terraform")
        assert (record.reason, record.source_address) == ("why", "192.0.2.1")
    what = "set services/stripe, set scopes/stripe.read, set agents/bot"
    assert (intent.phase, intent.decision, intent.detail) == ("intent", "allow", what)
    assert changed.change is not None
    assert (outcome.phase, outcome.decision) == ("outcome", "allow")
    assert outcome.detail == f"{what}: version 1, sha256:{changed.change.digest}"
    assert outcome.policy_version == admin.policies.current.version == changed.policy.version
    assert "bot" in admin.policies.current.agents


async def test_refusals_are_outcomes_too(admin: AdminBench) -> None:
    made = changes(admin)
    with pytest.raises(PolicyError):
        await made.change(edits(("scopes", "a", READ)), **WHO)
    with pytest.raises(PolicyConflict):
        await made.change([Edit("scopes", "a", None, "*")], **WHO)
    with pytest.raises(PolicyConflict):
        await made.rollback(7, **WHO)
    assert [(one.phase, one.decision) for one in admin.trail.records] == [
        ("intent", "allow"),
        ("outcome", "deny"),
    ] * 3
    details = [one.detail or "" for one in admin.trail.outcomes]
    assert "api:scopes/a:" in details[0]
    assert "unknown service 'stripe'" in details[0]
    assert details[1:] == [
        "remove scopes/a: scopes/a is not there",
        "rollback to version 7: there is no version 7 of the policy; the last is 0",
    ]


async def test_nothing_is_changed_that_is_not_on_record(admin: AdminBench) -> None:
    admin.trail.full = True
    with pytest.raises(AuditUnavailable):
        await changes(admin).change(edits(*ALL), **WHO)
    assert await admin.storage.policies.number() == 0


async def test_a_store_that_fails_is_an_error_on_record(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise StorageError("disk is gone")

    monkeypatch.setattr(admin.storage.policies, "commit", fail)
    with pytest.raises(StorageError):
        await changes(admin).change(edits(*ALL), **WHO)
    assert admin.trail.outcomes[0].decision == "error"


async def test_a_defect_is_recorded_by_its_kind_alone(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("sk_live_0123456789abcdef")

    monkeypatch.setattr(admin.storage.policies, "commit", fail)
    with pytest.raises(RuntimeError):
        await changes(admin).change(edits(*ALL), **WHO)
    assert (admin.trail.outcomes[0].detail or "").endswith(": RuntimeError")


async def test_a_change_is_in_force_later_if_it_cannot_be_now(admin: AdminBench) -> None:
    async def fail() -> None:
        raise StorageError("disk is gone")

    kept = KeptPolicies(admin.storage.policies, admin.judges)
    await RecordedChanges(kept, admin.trail, fail).change(edits(*ALL), **WHO)
    assert admin.trail.outcomes[0].decision == "allow"
    await admin.follower.catch_up()
    assert "bot" in admin.policies.current.agents


async def test_a_caller_who_hangs_up_leaves_a_whole_record(admin: AdminBench) -> None:
    started = asyncio.Event()
    done = asyncio.Event()

    async def in_force() -> None:
        started.set()
        await done.wait()

    trail = SlowTrail(prompt=True)
    kept = KeptPolicies(admin.storage.policies, admin.judges)
    task = asyncio.create_task(RecordedChanges(kept, trail, in_force).change(edits(*ALL), **WHO))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done.set()
    async with asyncio.timeout(30):
        while not trail.outcomes:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    assert trail.outcomes[0].decision == "allow"


def test_many_edits_are_counted() -> None:
    many = edits(*(("services", f"s{number}", STRIPE) for number in range(25)))
    assert told(many).endswith("set services/s19 and 5 more")
