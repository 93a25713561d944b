from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.errors import (
    CredentialRefused,
)
from broker.revoked import revocation
from tests.fakes.lease_bench import GRANT, NOW, SCOPES

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


async def test_what_is_not_delivered_is_revoked(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.mint()
    await lease_bench.leases.abandon(issued, "the caller hung up")
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease_bench.vendor.live) == ("revoked", {})
    assert "the caller hung up" in lease_bench.records()[-1]["detail"]
    assert not await lease_bench.leases.delivered(issued)


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
