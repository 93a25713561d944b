from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import CredentialRefused
from broker.leases.repeats import MOST, WORN, Repeats
from tests.fakes.lease_bench import GRANT, NOW, POLICY

if TYPE_CHECKING:
    from broker.leases.minting import Issued
    from tests.fakes.lease_bench import LeaseBench

KEY = ("grant-1", "plain.use", "sha256:0")


async def collect(bench: LeaseBench, scope: str = "plain.use", **changes: Any) -> Issued:
    issued = await bench.leases.collect(bench.token(**changes), scope, scope.partition(".")[0])
    assert await bench.leases.delivered(issued)
    return issued


async def test_the_same_is_handed_out_while_it_is_good(lease_bench: LeaseBench) -> None:
    first, again = await collect(lease_bench), await collect(lease_bench)
    assert again.fields == first.fields
    assert again.lease.id == first.lease.id == (await lease_bench.only()).id
    assert lease_bench.vendor.calls == ["mint"]


async def test_each_time_is_on_record(lease_bench: LeaseBench) -> None:
    first, again = await collect(lease_bench), await collect(lease_bench)
    record = lease_bench.records()[-1]
    assert record["operation"] == again.operation != first.operation
    assert (record["decision"], record["grant"]) == ("allow", "grant-1")
    assert record["detail"] == f"lease {first.lease.id}; handed out again"


@pytest.mark.parametrize("other", [{"jti": "grant-2"}, {"agent": "coder", "jti": "grant-3"}])
async def test_another_grant_gets_its_own(lease_bench: LeaseBench, other: dict[str, Any]) -> None:
    await collect(lease_bench)
    await collect(lease_bench, **other)
    assert lease_bench.vendor.calls == ["mint", "mint"]


async def test_a_policy_that_has_changed_mints_anew(lease_bench: LeaseBench) -> None:
    await collect(lease_bench)
    lease_bench.policy = lease_bench.load(POLICY.replace("max_ttl: 1m", "max_ttl: 2m"))
    await collect(lease_bench)
    assert lease_bench.vendor.calls == ["mint", "mint"]


async def test_a_revoked_grant_gets_nothing_again(lease_bench: LeaseBench) -> None:
    await collect(lease_bench)
    await lease_bench.revoke()
    with pytest.raises(CredentialRefused) as refusal:
        await collect(lease_bench)
    assert refusal.value.code == "invalid_token"


async def test_what_policy_no_longer_allows_is_not_handed_out_again(
    lease_bench: LeaseBench,
) -> None:
    await collect(lease_bench)
    with pytest.raises(CredentialRefused) as refusal:
        await collect(lease_bench, scopes=("revoking.use",))
    assert refusal.value.rule == "scope"


async def test_another_kind_of_provider_is_refused(lease_bench: LeaseBench) -> None:
    with pytest.raises(CredentialRefused, match="of provider plain"):
        await lease_bench.leases.collect(lease_bench.token(), "plain.use", "aws_sts")
    assert not lease_bench.vendor.calls


async def test_a_worn_one_is_replaced_where_another_lives_longer(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.life = 600
    await collect(lease_bench)
    lease_bench.clock.now += 600 - WORN - 1
    await collect(lease_bench)
    assert lease_bench.vendor.calls == ["mint"]
    lease_bench.clock.now += 1
    await collect(lease_bench)
    assert lease_bench.vendor.calls == ["mint", "mint"]


async def test_one_that_lives_as_long_as_its_grant_is_good_to_the_end(
    lease_bench: LeaseBench,
) -> None:
    await collect(lease_bench)
    lease_bench.clock.now = GRANT.expires_at - 2
    await collect(lease_bench)
    assert lease_bench.vendor.calls == ["mint"]


async def test_hanging_up_on_a_repeat_ends_nothing(lease_bench: LeaseBench) -> None:
    await collect(lease_bench)
    again = await lease_bench.leases.collect(lease_bench.token(), "plain.use", "plain")
    await lease_bench.leases.abandon(again, "the caller hung up")
    assert (await lease_bench.only()).state == "delivered"


async def test_what_was_never_delivered_is_not_remembered(lease_bench: LeaseBench) -> None:
    issued = await lease_bench.leases.collect(lease_bench.token(), "plain.use", "plain")
    await lease_bench.leases.abandon(issued, "the caller hung up")
    assert (await collect(lease_bench)).lease.id != issued.lease.id


async def test_the_end_of_a_grant_is_the_end_of_what_is_remembered(
    lease_bench: LeaseBench,
) -> None:
    repeats = Repeats()
    issued = await lease_bench.mint("plain.use", jti="child", ancestors=("root",))
    for ended in ("child", "root"):
        repeats.keep(KEY, issued, NOW)
        repeats.forget("another")
        assert repeats.find(KEY, NOW) is issued
        repeats.forget(ended)
        assert repeats.find(KEY, NOW) is None


async def test_memory_is_bounded_and_holds_nothing_that_has_ended(lease_bench: LeaseBench) -> None:
    repeats = Repeats()
    issued = await lease_bench.mint("plain.use")
    for number in range(MOST + 1):
        repeats.keep((f"grant-{number}", "s", "v"), issued, NOW)
    assert repeats.find(("grant-0", "s", "v"), NOW) is None
    assert repeats.find(("grant-1", "s", "v"), NOW) is issued
    later = replace(issued, expires_at=issued.expires_at + 60)
    repeats.keep(KEY, later, issued.expires_at)
    assert len(repeats._kept) == 1
