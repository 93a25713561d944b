from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from broker.errors import ConfigurationError
from broker.leases.making import MOST
from broker.leases.proxied import FIRST_PAUSE, HOLD, IDLE, LONGEST_PAUSE, LOOK, Proxied
from providers.base import Injection, ProviderError
from tests.fakes.lease_bench import GRANT, NOW, SCOPES
from tests.fakes.vendor_mint import GONE, REFUSED, Config, Constraints

if TYPE_CHECKING:
    from broker.leases.order import Order
    from tests.fakes.lease_bench import LeaseBench

VERSION = "sha256:1"


class Wider(Constraints):
    """Constraints of a scope that says something."""

    rights: str = "all"


def key(injection: Injection) -> bytes:
    ((name, value),) = injection.headers
    assert name == b"X-Key"
    return value.reveal()


async def ask(proxied: Proxied, order: Order) -> bytes:
    return key(await proxied.injection(order, VERSION))


async def wait(lease_bench: LeaseBench, proxied: Proxied, seconds: float) -> None:
    """Let time pass, and what is in use be held meanwhile."""
    until = lease_bench.clock.now + seconds
    while lease_bench.clock.now < until:
        lease_bench.clock.now = min(until, lease_bench.clock.now + LOOK)
        await proxied.hold()


async def states(lease_bench: LeaseBench) -> list[str]:
    return [lease.state for lease in await lease_bench.storage.leases.leases(over=True)]


@pytest.mark.parametrize("scope", SCOPES)
async def test_what_the_gateway_uses_has_a_lease(lease_bench: LeaseBench, scope: str) -> None:
    injection = await lease_bench.proxied().injection(lease_bench.order(scope), VERSION)
    assert key(injection).endswith(scope.encode())
    lease = await lease_bench.only()
    assert (lease.state, lease.delivery, lease.grant) == ("delivered", "proxy", "grant-1")
    assert (lease.expires_at, lease.scope, lease.agent) == (GRANT.expires_at, scope, "coder")
    intent, outcome = lease_bench.records()
    assert (intent["phase"], outcome["decision"]) == ("intent", "allow")
    assert outcome["detail"] == f"lease {lease.id}; for the gateway"
    assert outcome["policy_version"] == VERSION


async def test_it_is_minted_once_however_many_need_it(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    keys = await asyncio.gather(*(ask(proxied, order) for _ in range(10)))
    assert len({*keys, await ask(proxied, order)}) == 1
    assert lease_bench.vendor.calls == ["reserve", "mint"]
    assert 0 < (await proxied.injection(order, VERSION)).fresh_for <= LOOK


async def test_u1_a_credential_is_never_used_for_another(lease_bench: LeaseBench) -> None:
    """All that it depends on (onecli#252): service, configuration, grant, scope, constraints."""
    proxied, order = lease_bench.proxied(), lease_bench.order()
    service = order.service
    others = [
        order,
        lease_bench.order("reserving.brief"),
        lease_bench.order(jti="grant-2"),
        replace(order, constraints=Wider()),
        replace(order, constraints=Wider(rights="some")),
        replace(order, service=replace(service, name="twin")),
        replace(order, service=replace(service, config=Config(account="emca"))),
        replace(order, service=replace(service, provider="revoking")),
    ]
    assert len({await ask(proxied, one) for one in others}) == len(others)
    assert len(await lease_bench.storage.leases.leases()) == len(others)
    assert len({await ask(proxied, one) for one in others}) == len(others)
    assert len(lease_bench.vendor.live) == len(others)


async def test_it_is_used_up_to_the_end_of_its_grant_and_then_ended(
    lease_bench: LeaseBench,
) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    first = await ask(proxied, order)
    for _ in range(89):
        await wait(lease_bench, proxied, LOOK)
        assert await ask(proxied, order) == first
    await lease_bench.reap()
    assert await states(lease_bench) == ["delivered"]
    await lease_bench.reap(LOOK)
    assert (await states(lease_bench), lease_bench.vendor.live) == (["expired"], {})


async def test_what_nobody_holds_any_more_is_ended_by_whoever_comes(
    lease_bench: LeaseBench,
) -> None:
    await ask(lease_bench.proxied(owner="died"), lease_bench.order())
    await lease_bench.reap(HOLD - 1)
    assert await states(lease_bench) == ["delivered"]
    await lease_bench.reap(1)
    assert (await states(lease_bench), lease_bench.vendor.live) == (["revoked"], {})


async def test_what_another_has_ended_is_not_used(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    first = await ask(proxied, order)
    await lease_bench.reap(HOLD)  # as after a suspended process, or one that was cut off
    assert await ask(proxied, order) != first
    await lease_bench.storage.leases.end((await lease_bench.only_live()).id, "x", NOW, None)
    await proxied.hold()
    assert await ask(proxied, order) != first
    assert len(lease_bench.vendor.live) == 2


async def test_r5_a_machine_that_was_suspended_asks_before_it_goes_on(
    lease_bench: LeaseBench,
) -> None:
    asleep = 0.0
    proxied = lease_bench.proxied(clock=lambda: lease_bench.clock.now + asleep)
    first = await ask(proxied, lease_bench.order())
    asleep = 300.0  # which the monotonic clock has not seen, and the store has
    assert await ask(proxied, lease_bench.order()) != first


async def test_r5_what_a_suspended_machine_has_let_go_of_is_not_renewed(
    lease_bench: LeaseBench,
) -> None:
    asleep, lease_bench.vendor.life = 0.0, 200
    proxied = lease_bench.proxied(clock=lambda: lease_bench.clock.now + asleep)
    first = await ask(proxied, lease_bench.order())
    asleep = HOLD + 1  # by now it may be another's to end
    assert await ask(proxied, lease_bench.order()) != first
    assert "renew" not in lease_bench.vendor.calls


async def test_without_its_store_nothing_is_used_for_long(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    await ask(proxied, order)
    await lease_bench.storage.close()
    with pytest.raises(Exception, match="closed"):
        await proxied.hold()
    assert await ask(proxied, order)
    lease_bench.clock.now += HOLD
    with pytest.raises(ProviderError) as failure:
        await ask(proxied, order)
    assert failure.value.retryable


@pytest.mark.parametrize("scope", ["revoking.use", "plain.use"])
async def test_what_no_request_has_needed_for_long_is_given_up_if_it_can_be_ended(
    lease_bench: LeaseBench, scope: str
) -> None:
    proxied = lease_bench.proxied()
    await ask(proxied, lease_bench.order(scope))
    await wait(lease_bench, proxied, IDLE + HOLD + LOOK)
    await lease_bench.reap()
    assert await states(lease_bench) == ["revoked" if scope == "revoking.use" else "delivered"]


async def test_what_wears_out_is_replaced_before_its_end(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order("revoking.use")
    lease_bench.vendor.life = 300
    first = await ask(proxied, order)
    await wait(lease_bench, proxied, 239)
    assert await ask(proxied, order) == first
    await wait(lease_bench, proxied, 2)
    second = await ask(proxied, order)
    assert second != first
    await wait(lease_bench, proxied, HOLD)
    await lease_bench.reap()
    assert await ask(proxied, order) == second
    assert sorted(await states(lease_bench)) == ["delivered", "revoked"]


async def test_what_can_be_renewed_is_not_minted_anew(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    lease_bench.vendor.life = 60
    first = await ask(proxied, order)
    for _ in range(14):
        await wait(lease_bench, proxied, 50)
        assert await ask(proxied, order) == first
        assert (await lease_bench.only()).expires_at >= lease_bench.clock.now + 30
    assert lease_bench.vendor.calls.count("mint") == 1
    assert lease_bench.vendor.calls.count("renew") >= 10


async def test_what_cannot_be_renewed_is_minted_anew(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    lease_bench.vendor.life = 60
    first = await ask(proxied, order)
    lease_bench.vendor.fail["renew"] = [REFUSED]
    await wait(lease_bench, proxied, 50)
    assert await ask(proxied, order) != first


async def test_the_one_at_hand_serves_to_its_end_if_there_is_no_better(
    lease_bench: LeaseBench,
) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order("revoking.use")
    lease_bench.vendor.life = 200
    first = await ask(proxied, order)
    await wait(lease_bench, proxied, 170)
    lease_bench.vendor.fail["mint"] = [GONE, GONE]
    injection = await proxied.injection(order, VERSION)
    assert (key(injection), injection.fresh_for) == (first, LOOK)
    assert await ask(proxied, order) == first
    assert len(lease_bench.vendor.fail["mint"]) == 1  # it is tried again, and not at once
    lease_bench.clock.now += 31
    with pytest.raises(ProviderError, match="down"):
        await ask(proxied, order)
    lease_bench.clock.now += LONGEST_PAUSE
    assert await ask(proxied, order) != first


async def test_r5_a_wall_clock_that_is_set_back_prolongs_nothing(lease_bench: LeaseBench) -> None:
    wall = lease_bench.clock.now
    proxied = lease_bench.proxied(clock=lambda: wall)
    order = lease_bench.order("revoking.use")
    first = await ask(proxied, order)
    await wait(lease_bench, proxied, 600)
    assert await ask(proxied, order) == first
    await wait(lease_bench, proxied, 299)
    wall -= 3600
    assert await ask(proxied, order) == first
    lease_bench.clock.now += 2
    with pytest.raises(ProviderError, match="outlives"):  # one minted now is too late, too
        await ask(proxied, order)


async def test_r3_revocation_is_the_end_of_it_at_once(lease_bench: LeaseBench) -> None:
    proxied = lease_bench.proxied()
    await ask(proxied, lease_bench.order())
    await ask(proxied, lease_bench.order(jti="child", ancestors=("grant-1",)))
    kept = await ask(proxied, lease_bench.order(jti="stranger"))
    await lease_bench.revoke()
    proxied.forget(lease_bench.grants.is_revoked)
    await lease_bench.reap()
    assert sorted(await states(lease_bench)) == ["delivered", "revoked", "revoked"]
    assert len(lease_bench.vendor.live) == 1
    assert await ask(proxied, lease_bench.order(jti="stranger")) == kept
    with pytest.raises(ProviderError, match="revoked"):
        await ask(proxied, lease_bench.order())


@pytest.mark.parametrize(
    ("moment", "call"), [("before", "reserve"), ("before", "mint"), ("after", "mint")]
)
async def test_r3_revocation_wins_over_minting(
    lease_bench: LeaseBench, moment: str, call: str
) -> None:
    getattr(lease_bench.vendor, moment)[call] = lease_bench.revoke
    with suppress(ProviderError):
        await ask(lease_bench.proxied(), lease_bench.order())
    await lease_bench.reap()
    assert (await states(lease_bench), lease_bench.vendor.live) == (["revoked"], {})


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_r3_revocation_wins_over_renewal(lease_bench: LeaseBench, moment: str) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order()
    lease_bench.vendor.life = 60
    await ask(proxied, order)
    await wait(lease_bench, proxied, 50)
    getattr(lease_bench.vendor, moment)["renew"] = lease_bench.revoke
    with pytest.raises(ProviderError, match="revoked"):
        await ask(proxied, order)
    await lease_bench.reap()
    assert (set(await states(lease_bench)), lease_bench.vendor.live) == ({"revoked"}, {})


async def test_failures_are_told_and_may_pass(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order("revoking.use")
    lease_bench.vendor.fail["mint"] = [REFUSED, GONE]
    for _ in range(3):  # for a moment, that is the answer
        with pytest.raises(ProviderError, match="refused") as failure:
            await ask(proxied, order)
        assert not failure.value.retryable
    assert lease_bench.vendor.calls.count("mint") == 1
    lease_bench.clock.now += FIRST_PAUSE
    both = await asyncio.gather(
        ask(proxied, order), ask(proxied, order), return_exceptions=True
    )  # one failure for both, and not two attempts at what is down
    assert [isinstance(one, ProviderError) and one.retryable for one in both] == [True, True]
    lease_bench.clock.now += 2 * FIRST_PAUSE
    assert await ask(proxied, order)


async def test_an_outage_does_not_use_up_what_a_grant_may_have(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order("revoking.use", expires_at=NOW + 7200)

    async def lose() -> None:
        raise GONE

    lease_bench.vendor.after["mint"] = lose
    for _ in range(3600):
        lease_bench.clock.now += 1
        with pytest.raises(ProviderError, match="down"):
            await ask(proxied, order)
    assert 55 <= len(await lease_bench.storage.leases.leases()) < MOST["proxy"]
    del lease_bench.vendor.after["mint"]
    lease_bench.clock.now += LONGEST_PAUSE
    assert await ask(proxied, lease_bench.order("revoking.use", expires_at=NOW + 7200))
    await proxied.hold()
    assert proxied._failed == {}


async def test_what_cannot_be_written_into_a_request_is_ended(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ProviderError("it has no password")

    provider = lease_bench.desk.providers.of_service(lease_bench.order().service)
    monkeypatch.setattr(type(provider), "present", fail)
    with pytest.raises(ProviderError, match="no password"):
        await ask(lease_bench.proxied(), lease_bench.order())
    await lease_bench.reap()
    lease = await lease_bench.only()
    assert (lease.state, lease_bench.vendor.live) == ("revoked", {})
    assert "no password" in lease_bench.records()[-1]["detail"]


async def test_a_provider_that_cannot_be_built_says_why(lease_bench: LeaseBench) -> None:
    class Broken:
        def of_service(self, _: object) -> NoReturn:
            raise ConfigurationError("the CA file /ca.pem cannot be read")

    with pytest.raises(ProviderError, match=r"ca\.pem"):
        await ask(lease_bench.proxied(providers=Broken()), lease_bench.order())


async def test_nothing_is_minted_in_a_grants_last_moment(lease_bench: LeaseBench) -> None:
    order = lease_bench.order(expires_at=int(NOW))
    with pytest.raises(ProviderError, match="about to expire"):
        await ask(lease_bench.proxied(), order)
    assert lease_bench.vendor.calls == []


async def test_a_caller_that_is_gone_stops_nothing(lease_bench: LeaseBench) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await go_on.wait()

    lease_bench.vendor.before["mint"] = wait
    proxied, order = lease_bench.proxied(), lease_bench.order()
    gone = asyncio.create_task(ask(proxied, order))
    await arrived.wait()
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    go_on.set()
    assert await ask(proxied, order)
    assert lease_bench.vendor.calls.count("mint") == 1


async def test_a_broker_that_stops_leaves_nothing(lease_bench: LeaseBench) -> None:
    proxied = lease_bench.proxied()
    await ask(proxied, lease_bench.order())
    await ask(proxied, lease_bench.order("plain.use"))
    arrived = asyncio.Event()

    async def linger() -> None:
        arrived.set()
        await asyncio.sleep(0.05)

    lease_bench.vendor.after["mint"] = linger
    late = asyncio.create_task(ask(proxied, lease_bench.order(jti="late")))
    await arrived.wait()
    reaping = asyncio.create_task(lease_bench.reaper.run())
    await proxied.close()
    with pytest.raises(ProviderError, match="stops"):
        await late
    await asyncio.sleep(0)
    reaping.cancel()
    await lease_bench.reap()
    assert sorted(await states(lease_bench)) == ["revoked", "revoked", "revoking"]
    assert len(lease_bench.vendor.live) == 1  # which nothing can revoke


async def test_it_is_held_for_ever(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.leases.proxied.LOOK", 0.0)
    proxied = lease_bench.proxied()
    await ask(proxied, lease_bench.order())
    looking = asyncio.create_task(proxied.look_after())
    lease_bench.clock.now += 20
    while (await lease_bench.only()).due_at != NOW + 20 + HOLD:
        await lease_bench.storage.leases.counts()
    await lease_bench.storage.close()
    await asyncio.sleep(0.01)
    assert not looking.done()
    looking.cancel()


async def test_a_grant_has_so_many_in_use_and_its_agent_others(lease_bench: LeaseBench) -> None:
    proxied, order = lease_bench.proxied(), lease_bench.order("plain.use")
    for number in range(MOST["proxy"]):
        await ask(proxied, replace(order, constraints=Wider(rights=str(number))))
    with pytest.raises(ProviderError, match="100 credentials already"):
        await ask(proxied, order)
    await lease_bench.deliver("plain.use")
