from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import CredentialRefused
from broker.leases.order import Wanted, decide
from tests.fakes.lease_bench import GRANT, NOW

if TYPE_CHECKING:
    from tests.fakes.lease_bench import LeaseBench


def test_the_lease_and_the_request_are_of_the_grant(lease_bench: LeaseBench) -> None:
    child = replace(GRANT, jti="child", ancestors=("root", "grant-1"))
    order = decide(lease_bench.policy, child, Wanted("reserving.use"), NOW + 10.5)
    lease, request = order.lease(), order.request()
    assert lease.state == "intent"
    assert (lease.grant, lease.ancestors) == ("child", ("root", "grant-1"))
    assert lease.config == '{"account":"acme"}'
    assert lease.created_at == lease.due_at == NOW + 10.5
    assert (request.agent, request.grant, request.task) == ("coder", "child", "tidy up")
    assert request.constraints is lease_bench.policy.scopes["reserving.use"].constraints
    assert order.lease().id != lease.id


def test_a_vendor_that_has_a_least_lifetime_is_believed(lease_bench: LeaseBench) -> None:
    service = lease_bench.policy.services["reserving"]
    longer = replace(service, plugin=replace(service.plugin, least_lifetime=3600))
    order = decide(lease_bench.policy, GRANT, Wanted("reserving.use"), NOW)
    lease = replace(order, service=longer).lease()
    assert (lease.grant_ends_at, lease.expires_at) == (NOW + 900, NOW + 3600)


@given(
    now=st.floats(NOW, NOW + 899),
    scope=st.sampled_from(["plain.use", "revoking.use", "reserving.use", "reserving.brief"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_credential_is_asked_for_longer_than_its_grant(
    lease_bench: LeaseBench, now: float, scope: str
) -> None:
    order = decide(lease_bench.policy, GRANT, Wanted(scope), now)
    assert 1 <= order.lifetime <= GRANT.expires_at - now
    assert order.lease().grant_ends_at <= GRANT.expires_at


@given(held=st.sets(st.sampled_from(GRANT.scopes)), asked=st.sampled_from(GRANT.scopes))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_not_held_or_not_delivered_is_refused(
    lease_bench: LeaseBench, held: set[str], asked: str
) -> None:
    grant = replace(GRANT, scopes=tuple(held), reason="because")
    deliverable = held - {"api.read"}
    if asked in deliverable:
        assert decide(lease_bench.policy, grant, Wanted(asked), NOW).scope == asked
        return
    with pytest.raises(CredentialRefused) as refusal:
        decide(lease_bench.policy, grant, Wanted(asked), NOW)
    assert refusal.value.rule in {"scope", "delivery"}
    assert set(refusal.value.allowed) == deliverable
    assert "its agent may ask for plain.use" in str(refusal.value)
