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
from broker.leases.minting import MOST_PER_GRANT, MOST_SKEW
from broker.revoked import revocation
from providers.base import Dependencies, ProviderError
from tests.fakes.lease_bench import GRANT, NOW, SCOPES
from tests.fakes.vendor_mint import GONE, REFUSED

if TYPE_CHECKING:
    from tests.fakes.lease_bench import LeaseBench


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_credential_is_minted_for_the_grant(lease_bench: LeaseBench, scope: str) -> None:
    issued = await lease_bench.deliver(scope)
    lease = await lease_bench.only()
    assert issued.fields["password"].reveal()
    assert (lease.state, lease.grant, lease.agent, lease.scope) == (
        "delivered",
        "grant-1",
        "coder",
        scope,
    )
    assert issued.expires_at == lease.expires_at == GRANT.expires_at
    assert list(lease_bench.vendor.live.values()) == [GRANT.expires_at]


async def test_the_way_in_is_on_record_and_no_secret_is(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.deliver()
    intent, outcome = lease_bench.records()
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert intent["operation"] == outcome["operation"] == issued.operation
    assert outcome["action"] == "credential.mint"
    assert outcome["decision"] == "allow"
    assert (outcome["agent"], outcome["grant"], outcome["task"]) == ("coder", "grant-1", "tidy up")
    assert (outcome["service"], outcome["scope"]) == ("reserving", "reserving.use")
    assert outcome["detail"] == f"lease {issued.lease.id}"
    assert outcome["source_address"] == "192.0.2.1"
    assert issued.fields["password"].reveal().decode() not in repr((intent, outcome, issued))


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


async def test_a_scope_that_ends_early_ends_its_credential_early(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.deliver("reserving.brief")
    assert issued.expires_at == NOW + 60
    await lease_bench.reap(61)
    assert (await lease_bench.only()).state == "expired"


@pytest.mark.parametrize(
    ("change", "scope", "code"),
    [
        ({"scopes": ("api.read",)}, "reserving.use", "insufficient_scope"),
        ({}, "reserving.*", "insufficient_scope"),
        ({}, "", "insufficient_scope"),
        ({}, "api.read", "delivery_refused"),
        ({}, "reserving.why", "reason_required"),
        ({"expires_at": int(NOW)}, "reserving.use", "invalid_token"),
        ({"agent": "gone"}, "reserving.use", "invalid_token"),
    ],
)
async def test_what_policy_refuses_leaves_nothing_but_its_record(
    lease_bench: LeaseBench, change: dict[str, object], scope: str, code: str
) -> None:
    with pytest.raises(CredentialRefused) as refusal:
        await lease_bench.mint(scope, **change)
    assert refusal.value.code == code
    (record,) = lease_bench.records()
    assert (record["decision"], record["operation"]) == ("deny", refusal.value.operation)
    assert record["detail"].startswith(f"{code}: ")
    assert lease_bench.vendor.calls == []
    assert await lease_bench.storage.leases.leases(over=True) == ()


async def test_a_static_key_is_never_delivered(lease_bench: LeaseBench) -> None:
    text = "scopes: {x: {service: api, allow: ['GET /**'], delivery: [credential]}}"
    with pytest.raises(Exception, match="its credential is no short-lived one"):
        lease_bench.load(
            "services: {api: {provider: http_api, base_url: 'https://api.example', "
            f"credential: {{type: bearer, secret: 'env:K'}}}}}}\n{text}"
        )


async def test_a_service_that_is_not_the_scopes_is_refused(lease_bench: LeaseBench) -> None:
    with pytest.raises(CredentialRefused, match="of service reserving, and of no other"):
        await lease_bench.leases.mint(lease_bench.token(), "reserving.use", "plain")
    await lease_bench.leases.mint(lease_bench.token(), "reserving.use", "reserving")


async def test_a_revoked_grant_mints_nothing(lease_bench: LeaseBench) -> None:
    lease_bench.grants.learn([revocation("grant", "grant-1", now=0, by="test")])
    with pytest.raises(CredentialRefused) as refusal:
        await lease_bench.mint()
    assert refusal.value.code == "invalid_token"


async def test_a_grant_has_so_many_credentials_and_no_more(lease_bench: LeaseBench) -> None:
    for _ in range(MOST_PER_GRANT):
        await lease_bench.deliver("plain.use")
    with pytest.raises(CredentialRefused) as refusal:
        await lease_bench.mint("plain.use")
    assert refusal.value.code == "too_many_credentials"
    assert len(lease_bench.vendor.live) == MOST_PER_GRANT
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


async def test_what_is_not_delivered_is_revoked(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.mint()
    await lease_bench.leases.abandon(issued, "the caller hung up")
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease_bench.vendor.live) == ("revoked", {})
    assert "the caller hung up" in lease_bench.records()[-1]["detail"]
    assert not await lease_bench.leases.delivered(issued)


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


async def test_the_end_of_a_grant_is_that_of_its_credentials(lease_bench: LeaseBench) -> None:
    await lease_bench.deliver()
    await lease_bench.deliver(jti="child", ancestors=("grant-1",))
    await lease_bench.deliver(jti="stranger")
    lease_bench.leases.wake.clear()
    assert await lease_bench.leases.end_grant("grant-1") == 2
    assert lease_bench.leases.wake.is_set()
    await lease_bench.reap()
    states = {one.grant: one.state for one in await lease_bench.storage.leases.leases(over=True)}
    assert states == {"grant-1": "revoked", "child": "revoked", "stranger": "delivered"}
    assert len(lease_bench.vendor.live) == 1
