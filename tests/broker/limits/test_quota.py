from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.allowance import Limits, Rate
from broker.limits.quota import Cap, Quota, quota_of, token_quota
from broker.model import Agent, Grant, Scope

SLOW, QUICK = Rate(30, "minute"), Rate(5, "second")


def grant(**fields: Any) -> Grant:
    known: dict[str, Any] = {
        "jti": "jti-1",
        "agent": "bot",
        "issuer": "local",
        "subject": "bot",
        "scopes": ("x.read",),
        "issued_at": 0,
        "expires_at": 900,
        "policy_version": "v",
        "client_id": "bot",
    }
    return Grant(**(known | fields))


def policy(scope: Limits | None = None, **agents: Limits | None) -> Any:
    declared = Scope("x.read", "x", (), (), frozenset({"proxy"}), None, limits=scope)
    return SimpleNamespace(
        scopes={"x.read": declared},
        agents={name: Agent(name, ("x.read",), limits=limits) for name, limits in agents.items()},
    )


def quota(
    scope: Limits | None = None, *, of: Grant | None = None, **agents: Limits | None
) -> Quota:
    found = quota_of(policy(scope, **agents), of or grant(), "x.read")
    assert found is not None
    return found


def test_where_nothing_is_limited_there_is_none() -> None:
    assert quota_of(policy(bot=None), grant(), "x.read") is None
    assert quota_of(policy(other=Limits(total=1)), grant(), "x.read") is None
    assert quota_of(policy(bot=None), grant(), "unknown") is None


def test_a_scope_is_counted_for_an_agent_and_an_agent_by_itself() -> None:
    both = quota(Limits((QUICK, SLOW), 4), bot=Limits((SLOW,), 9))
    assert [(one.key, one.name) for one in both.windows] == [
        ("scope/x.read/bot", "scope x.read: rate 5/second"),
        ("scope/x.read/bot", "scope x.read: rate 30/minute"),
        ("agent/bot", "agent bot: rate 30/minute"),
    ]
    assert [one.item.get_expiry() for one in both.windows] == [1, 60, 60]
    assert len({one.count_key for one in both.windows}) == 3
    assert both.places == (
        Cap(4, "scope/x.read/bot", "scope x.read: concurrent 4"),
        Cap(9, "agent/bot", "agent bot: concurrent 9"),
    )


def test_a_total_is_counted_for_the_grant_and_its_ancestors() -> None:
    child = grant(jti="c", ancestors=("root", "a"))
    totals = quota(Limits(total=7), of=child, bot=Limits(total=100)).totals
    assert [(one.most, one.key) for one in totals] == [
        (7, "scope/x.read/bot/c"),
        (7, "scope/x.read/bot/root"),
        (7, "scope/x.read/bot/a"),
        (100, "agent/bot/c"),
        (100, "agent/bot/root"),
        (100, "agent/bot/a"),
    ]
    assert totals[0].name == "scope x.read: total 7"


def test_whoever_acts_for_another_is_counted_too() -> None:
    acting = grant(actor={"sub": "helper", "act": {"sub": "older"}}, client_id="helper")
    limits = Limits((SLOW,))
    keys = [one.key for one in quota(of=acting, bot=limits, helper=limits, older=limits).windows]
    assert keys == ["agent/bot", "agent/helper"]
    oneself = grant(actor={"sub": "bot"})
    assert len(quota(of=oneself, bot=limits).windows) == 1


@pytest.mark.parametrize("kind", ["request_bytes", "response_bytes"])
def test_of_sizes_the_least_counts(kind: str) -> None:
    small, large = (replace(Limits(), **fields) for fields in sizes(kind))
    for scope, agent, name in (
        (small, large, f"scope x.read: {kind} 1000B"),
        (large, small, f"agent bot: {kind} 1000B"),
        (None, large, f"agent bot: {kind} 1MiB"),
    ):
        found = quota(scope, bot=agent)
        cap = getattr(found, kind)
        assert cap.name == name
        assert cap.most == (1 << 20 if scope is None else 1000)
        assert not found.counted


def test_of_what_is_minted_nothing_is_under_way() -> None:
    minting = quota(Limits((SLOW,), 1, 3)).minting()
    assert (len(minting.windows), minting.places, len(minting.totals)) == (1, (), 1)
    assert not quota(Limits(concurrent=1)).minting().counted


def test_task_tokens_are_counted_by_the_agents_rates_for_themselves() -> None:
    found = token_quota(Agent("bot", (), limits=Limits((SLOW,), 1, 2, 3, 4)))
    assert found is not None
    assert [(one.key, one.name) for one in found.windows] == [
        ("token/bot", "agent bot: rate 30/minute")
    ]
    assert (found.places, found.totals, found.request_bytes) == ((), (), None)
    assert token_quota(Agent("bot", (), limits=Limits(total=1))) is None
    assert token_quota(Agent("bot", ())) is None
    assert token_quota(None) is None


def sizes(kind: str) -> list[dict[str, Any]]:
    return [{kind: 1000}, {kind: 1 << 20}]


LIMITS = st.none() | st.builds(
    Limits,
    st.just(()) | st.just((SLOW,)) | st.just((QUICK, SLOW)),
    *(st.none() | st.integers(1, 9) for _ in range(4)),
)


@given(LIMITS, LIMITS, LIMITS)
def test_another_limit_only_ever_narrows(
    scope: Limits | None, agent: Limits | None, helper: Limits | None
) -> None:
    acting = grant(actor={"sub": "helper"})
    for fewer in (
        quota_of(policy(scope, bot=agent), acting, "x.read"),
        quota_of(policy(None, bot=agent, helper=helper), acting, "x.read"),
    ):
        whole = quota_of(policy(scope, bot=agent, helper=helper), acting, "x.read")
        if fewer is None:
            continue
        assert whole is not None
        for part in ("windows", "places", "totals"):
            assert set(getattr(fewer, part)) <= set(getattr(whole, part))
        for kind in ("request_bytes", "response_bytes"):
            cap = getattr(fewer, kind)
            assert cap is None or getattr(whole, kind).most <= cap.most
