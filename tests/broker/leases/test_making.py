from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from broker.app.minters import Minters
from broker.errors import (
    AuditUnavailable,
    ConfigurationError,
    CredentialRefused,
    CredentialUnavailable,
    StorageError,
)
from broker.leases.base import CLAIM
from broker.leases.making import MOST, MOST_SKEW
from providers.base import Dependencies, ProviderError
from tests.fakes.lease_bench import GRANT, NOW
from tests.fakes.vendor_mint import GONE, REFUSED

if TYPE_CHECKING:
    from tests.fakes.lease_bench import LeaseBench


async def test_the_intent_is_durable_before_the_vendor_is_called(lease_bench: LeaseBench) -> None:
    seen = []

    async def look() -> None:
        seen.append(((await lease_bench.only()).state, len(lease_bench.records())))

    lease_bench.vendor.before.update(reserve=look, mint=look)
    await lease_bench.mint()
    assert seen == [("intent", 1), ("intent", 1)]


async def test_the_handle_is_stored_sealed_for_this_lease(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.mint()
    lease = await lease_bench.only()
    assert lease.handle is not None
    assert b"user-" not in lease.handle
    assert lease_bench.desk.unseal(lease.id, lease.handle) == {"name": "user-1"}
    with pytest.raises(Exception, match="from another place"):
        lease_bench.desk.unseal("lease-other", lease.handle)
    assert "hunter2" not in repr(issued)


async def test_a_grant_has_so_many_credentials_and_no_more(lease_bench: LeaseBench) -> None:
    for _ in range(MOST["credential"]):
        await lease_bench.deliver("plain.use")
    with pytest.raises(CredentialRefused) as refusal:
        await lease_bench.mint("plain.use")
    assert refusal.value.code == "too_many_credentials"
    assert len(lease_bench.vendor.live) == MOST["credential"]
    await lease_bench.mint("plain.use", jti="another")


@pytest.mark.parametrize("call", ["reserve", "mint"])
async def test_a_refusal_of_the_vendor_ends_the_lease(lease_bench: LeaseBench, call: str) -> None:
    lease_bench.vendor.fail[call] = [REFUSED]
    with pytest.raises(CredentialUnavailable, match="refused") as failure:
        await lease_bench.mint()
    assert not failure.value.retryable
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert lease.state == "revoked"
    assert lease_bench.vendor.live == {}
    assert lease_bench.records()[1]["decision"] == "error"


async def test_a_vendor_that_refuses_outright_has_minted_nothing(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.fail["mint"] = [REFUSED]
    with pytest.raises(CredentialUnavailable):
        await lease_bench.mint("revoking.use")
    lease = await lease_bench.only()
    assert (lease.state, lease.problem) == (
        "revoked",
        "never minted: CredentialUnavailable: the vendor refused (403)",
    )


async def test_what_certainly_made_nothing_leaves_nothing_to_wait_for(
    lease_bench: LeaseBench,
) -> None:
    lease_bench.vendor.fail["mint"] = [
        ProviderError("the vendor is busy", retryable=True, untouched=True)
    ]
    with pytest.raises(CredentialUnavailable) as failure:
        await lease_bench.mint("revoking.use")
    assert failure.value.retryable
    assert (await lease_bench.only()).state == "revoked"


async def test_a_provider_that_cannot_be_built_says_why(lease_bench: LeaseBench) -> None:
    def build(*_: object) -> NoReturn:
        raise ConfigurationError("the CA file /ca.pem cannot be read")

    plugins = {"plain": replace(lease_bench.plugins["plain"], build=build)}
    minters = Minters(plugins, Dependencies(None, None, lease_bench.clock))  # type: ignore[arg-type]
    worker = lease_bench.worker(providers=minters)
    with pytest.raises(CredentialUnavailable, match=r"ca\.pem"):
        await worker.mint(lease_bench.token(), "plain.use")
    assert (await lease_bench.only()).state == "revoked"


@pytest.mark.parametrize("scope", ["plain.use", "revoking.use"])
async def test_what_may_have_been_minted_stays_in_sight(
    lease_bench: LeaseBench, scope: str
) -> None:
    async def lose() -> None:
        raise GONE

    lease_bench.vendor.after["mint"] = lose
    with pytest.raises(CredentialUnavailable) as failure:
        await lease_bench.mint(scope)
    assert failure.value.retryable
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease.due_at) == ("intent", GRANT.expires_at)
    assert (lease.problem or "").startswith("nobody knows whether it was minted")
    await lease_bench.reap(900)
    assert (await lease_bench.only()).state == "expired"


async def test_what_may_have_been_minted_under_a_hold_is_revoked(lease_bench: LeaseBench) -> None:
    async def lose() -> None:
        raise GONE

    lease_bench.vendor.after["mint"] = lose
    with pytest.raises(CredentialUnavailable):
        await lease_bench.mint()
    assert len(lease_bench.vendor.live) == 1
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert (await lease_bench.only()).state == "revoked"


async def test_r2_a_slow_vendor_is_not_waited_for_for_ever(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.before["mint"] = asyncio.Event().wait  # type: ignore[assignment]
    hasty = lease_bench.worker(patience=0.05)
    with pytest.raises(CredentialUnavailable, match="did not answer") as failure:
        await hasty.mint(lease_bench.token(), "reserving.use")
    assert failure.value.retryable
    await lease_bench.reap(CLAIM)
    assert (await lease_bench.only()).state == "revoked"


async def test_a_credential_that_outlives_its_grant_is_taken_back(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.clock = lambda: NOW + MOST_SKEW + 1
    with pytest.raises(CredentialUnavailable, match="outlives what was asked for by 61 s"):
        await lease_bench.mint()
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}


async def test_a2_without_a_trail_nothing_is_minted(lease_bench: LeaseBench) -> None:
    await lease_bench.trail.close()
    with pytest.raises(AuditUnavailable):
        await lease_bench.mint()
    assert lease_bench.vendor.calls == []


async def test_a2_a_trail_that_fails_meanwhile_has_it_revoked(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.after["mint"] = lease_bench.trail.close
    with pytest.raises(AuditUnavailable):
        await lease_bench.mint()
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}


async def test_without_storage_nothing_is_minted(lease_bench: LeaseBench) -> None:
    await lease_bench.storage.close()
    with pytest.raises(StorageError):
        await lease_bench.mint()
    assert lease_bench.vendor.calls == []
    assert lease_bench.records()[-1]["decision"] == "error"


async def test_r3_what_no_store_could_remember_is_taken_back_at_once(
    lease_bench: LeaseBench,
) -> None:
    lease_bench.vendor.after["mint"] = lease_bench.storage.close
    with pytest.raises(StorageError):
        await lease_bench.mint("revoking.use")
    assert lease_bench.vendor.calls == ["mint", "revoke"]
    assert lease_bench.vendor.live == {}


async def test_a_caller_that_is_cancelled_leaves_nothing(lease_bench: LeaseBench) -> None:
    arrived = asyncio.Event()

    async def hang() -> None:
        arrived.set()
        await asyncio.Event().wait()

    lease_bench.vendor.after["mint"] = hang
    task = asyncio.create_task(lease_bench.mint())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert any(record["decision"] == "error" for record in lease_bench.records())


async def test_a_defect_of_a_provider_leaves_nothing(lease_bench: LeaseBench) -> None:
    async def break_down() -> None:
        raise ZeroDivisionError("hunter2")

    lease_bench.vendor.after["mint"] = break_down
    with pytest.raises(ZeroDivisionError):
        await lease_bench.mint()
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert "hunter2" not in repr(lease_bench.records()) + repr(await lease_bench.only())
