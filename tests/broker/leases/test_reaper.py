from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.leases.base import CLAIM, LeaseStats
from broker.leases.reaper import LONGEST_PAUSE, Reaper
from broker.revoked import revocation
from broker.storage.sqlite import SqliteStorage
from tests.contracts.leases import LEASE
from tests.fakes.lease_bench import GRANT, NOW
from tests.fakes.vendor_mint import GONE, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.lease_bench import LeaseBench


@pytest.mark.parametrize("scope", ["revoking.use", "reserving.use"])
async def test_a_credential_ends_with_its_grant(lease_bench: LeaseBench, scope: str) -> None:
    await lease_bench.deliver(scope)
    await lease_bench.reap(899)
    assert len(lease_bench.vendor.live) == 1
    await lease_bench.reap(1)
    assert lease_bench.vendor.live == {}
    assert (await lease_bench.only()).state == "expired"
    record = lease_bench.records()[-1]
    assert (record["action"], record["decision"]) == ("credential.revoke", "allow")


async def test_an_end_is_tried_again_for_ever_and_ever_less_often(
    lease_bench: LeaseBench, caplog: pytest.LogCaptureFixture
) -> None:
    await lease_bench.deliver()
    await lease_bench.leases.end_grant("grant-1")
    lease_bench.vendor.fail["revoke"] = [GONE, REFUSED] * 10
    pauses = []
    with caplog.at_level(logging.WARNING):
        for attempt in range(1, 21):
            await lease_bench.reap()
            lease = await lease_bench.only()
            assert (lease.state, lease.attempts) == ("revoking", attempt)
            assert "the vendor" in (lease.problem or "")
            assert lease.due_at is not None
            pauses.append(lease.due_at - lease_bench.clock.now)
            lease_bench.clock.now = lease.due_at
    assert pauses[0] <= 0.5
    assert all(pause <= LONGEST_PAUSE for pause in pauses)
    assert min(pauses[-5:]) >= LONGEST_PAUSE / 2
    assert caplog.text.count("is not revoked yet") == 20
    await lease_bench.reap()
    assert (await lease_bench.only()).ended_at == lease_bench.clock.now
    assert lease_bench.vendor.live == {}
    # On record are the first failure and the end, and not each attempt of a long night.
    ends = [one for one in lease_bench.records() if one["action"] == "credential.revoke"]
    assert [one["decision"] for one in ends] == ["error", "allow"]
    assert lease_bench.desk.stats == LeaseStats(revoked=1, failed=20)


async def test_what_cannot_be_revoked_is_shown_until_it_has_ended(lease_bench: LeaseBench) -> None:
    await lease_bench.deliver("plain.use")
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease.due_at) == ("revoking", GRANT.expires_at)
    assert lease.problem == "its provider revokes nothing; it ends by itself"
    await lease_bench.reap(900)
    assert (await lease_bench.only()).state == "expired"


async def test_a_credential_is_renewed_to_the_end_of_its_grant(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.life = 120
    issued = await lease_bench.deliver()
    assert (issued.expires_at, issued.renewable) == (NOW + 120, True)
    for _ in range(900):
        assert min(lease_bench.vendor.live.values()) > lease_bench.clock.now
        await lease_bench.reap(1)
    assert lease_bench.vendor.live == {}
    assert 8 <= lease_bench.vendor.calls.count("renew") <= 20
    assert (await lease_bench.only()).ended_at == GRANT.expires_at


async def test_a_renewal_never_goes_beyond_the_grant(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.life = 500
    await lease_bench.deliver()
    await lease_bench.reap(400)
    assert (await lease_bench.only()).expires_at == GRANT.expires_at
    assert list(lease_bench.vendor.live.values()) == [GRANT.expires_at]


async def test_what_cannot_live_longer_is_not_asked_for_again(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.life, lease_bench.vendor.longest = 120, NOW + 130
    await lease_bench.deliver()
    for _ in range(140):
        await lease_bench.reap(1)
    assert lease_bench.vendor.calls.count("renew") == 1 + 1  # the second gained ten seconds
    assert (await lease_bench.only()).state == "expired"


@pytest.mark.parametrize(("failure", "calls"), [(GONE, 2), (REFUSED, 1)])
async def test_a_failed_renewal_is_repeated_where_that_may_help(
    lease_bench: LeaseBench, failure: Exception, calls: int
) -> None:
    lease_bench.vendor.life = 300
    await lease_bench.deliver()
    lease_bench.vendor.fail["renew"] = [failure]
    for _ in range(29):
        await lease_bench.reap(10)
        problem = (await lease_bench.only()).problem
        assert problem is None or problem.startswith("not renewed: the vendor")
    assert lease_bench.vendor.calls.count("renew") >= calls
    assert (lease_bench.vendor.calls.count("renew") == 1) == (failure is REFUSED)
    assert (await lease_bench.only()).state == "delivered"


async def test_r3_revocation_wins_over_a_renewal(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.life = 300
    await lease_bench.deliver()

    async def revoke_now() -> None:
        await lease_bench.leases.end_grant("grant-1")

    lease_bench.vendor.after["renew"] = revoke_now
    await lease_bench.reap(200)
    assert "renew" in lease_bench.vendor.calls
    assert lease_bench.vendor.live == {}
    assert (await lease_bench.only()).state == "revoked"


@pytest.mark.parametrize(
    ("side", "moment"), [("before", "reserve"), ("before", "mint"), ("after", "mint")]
)
async def test_r3_revocation_wins_over_minting(
    lease_bench: LeaseBench, side: str, moment: str
) -> None:
    async def revoke_now() -> None:
        lease_bench.grants.learn([revocation("grant", "grant-1", now=0, by="test")])
        await lease_bench.leases.end_grant("grant-1")

    getattr(lease_bench.vendor, side)[moment] = revoke_now
    with pytest.raises(Exception, match="has been revoked"):
        await lease_bench.mint()
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert (await lease_bench.only()).state == "revoked"


@pytest.mark.parametrize("scope", ["revoking.use", "reserving.use"])
async def test_a_worker_that_stopped_before_delivery_is_cleaned_up_after(
    lease_bench: LeaseBench, scope: str
) -> None:
    await lease_bench.mint(scope)
    await lease_bench.reap(CLAIM - 1)
    assert (await lease_bench.only()).state == "minted"
    await lease_bench.reap(1)
    assert lease_bench.vendor.live == {}
    assert (await lease_bench.only()).state == "revoked"


@pytest.mark.parametrize(("provider", "state"), [("revoking", "intent"), ("reserving", "revoked")])
async def test_r1_a_worker_that_died_with_an_intent_alone(
    lease_bench: LeaseBench, provider: str, state: str
) -> None:
    intent = replace(LEASE, provider=provider, config='{"account":"acme"}')
    await lease_bench.storage.leases.open(intent, "dead", NOW + CLAIM, 5)
    await lease_bench.reap(CLAIM)
    assert (await lease_bench.only()).state == state
    await lease_bench.reap(900)
    assert (await lease_bench.only()).state in {"revoked", "expired"}


async def test_a_service_that_left_the_policy_is_revoked_as_it_was(
    lease_bench: LeaseBench,
) -> None:
    await lease_bench.deliver()
    lease_bench.policy = lease_bench.load("agents: {}")
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}


async def test_a_provider_that_is_gone_is_said_and_waited_for(lease_bench: LeaseBench) -> None:
    await lease_bench.deliver()
    plugin = lease_bench.plugins["reserving"]
    lease_bench.plugins.pop("reserving")
    lease_bench.desk.providers._built.clear()  # type: ignore[attr-defined]
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert "provider 'reserving' is not installed" in (lease.problem or "")
    lease_bench.plugins["reserving"] = plugin
    await lease_bench.reap(1)
    assert (await lease_bench.only()).state == "revoked"


async def test_a_defect_of_one_provider_keeps_no_other_from_ending(
    lease_bench: LeaseBench,
) -> None:
    await lease_bench.deliver()
    await lease_bench.deliver()
    lease_bench.vendor.fail["revoke"] = [ZeroDivisionError("hunter2")]
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.reap()
    states = sorted(one.state for one in await lease_bench.storage.leases.leases(over=True))
    assert states == ["revoked", "revoking"]
    (left,) = await lease_bench.storage.leases.leases()
    assert left.problem == "the provider failed with ZeroDivisionError"


async def test_a_lease_whose_handle_cannot_be_read_stays_in_sight(
    lease_bench: LeaseBench,
) -> None:
    issued = await lease_bench.deliver()
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.storage.leases.minted(issued.lease.id, b"damaged", NOW + 900, NOW)
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease.attempts) == ("revoking", 1)
    assert "sealed text" in (lease.problem or "")


async def test_an_end_that_cannot_be_recorded_happens_all_the_same(
    lease_bench: LeaseBench, caplog: pytest.LogCaptureFixture
) -> None:
    await lease_bench.deliver()
    await lease_bench.leases.end_grant("grant-1")
    await lease_bench.trail.close()
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert "not on record" in caplog.text


async def test_two_reapers_share_the_work_and_repeat_none(
    lease_bench: LeaseBench, tmp_path: Path
) -> None:
    for n in range(30):
        await lease_bench.deliver(jti=f"g{n}")
        await lease_bench.leases.end_grant(f"g{n}")
    storage = SqliteStorage(tmp_path / "broker.db")
    other = Reaper(replace(lease_bench.desk, store=storage.leases, owner="other"), asyncio.Event())
    while sum(await asyncio.gather(lease_bench.reaper.reap(), other.reap())):
        pass
    assert lease_bench.vendor.live == {}
    assert lease_bench.vendor.calls.count("revoke") == 30
    await storage.close()


async def test_it_runs_until_cancelled_and_wakes_when_told(
    lease_bench: LeaseBench, caplog: pytest.LogCaptureFixture
) -> None:
    reaper = Reaper(lease_bench.desk, lease_bench.leases.wake, poll=60)
    task = asyncio.create_task(reaper.run())
    try:
        await lease_bench.deliver()
        await asyncio.sleep(0.05)
        await lease_bench.leases.end_grant("grant-1")
        await _until(lambda: not lease_bench.vendor.live)
        await lease_bench.storage.close()
        lease_bench.leases.wake.set()
        await _until(lambda: "cannot be looked after" in caplog.text)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
