from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.model import LONGEST_LIFETIME
from broker.revoked import Revoked, revocation, timeless
from tests.contracts.revocations import CHILD, GREAT, NOW, OTHER, ROOT, grant, order

if TYPE_CHECKING:
    from broker.model import RevocationKind


def test_nothing_is_revoked_at_first() -> None:
    assert not Revoked().covers(ROOT)
    assert len(Revoked()) == 0


def test_a_revocation_lasts_as_long_as_any_grant_could() -> None:
    one = revocation("agent", "bot", now=NOW + 0.9, by="user:test", reason="lost laptop")
    assert (one.revoked_at, one.until) == (NOW, NOW + LONGEST_LIFETIME)
    assert (one.by, one.reason, one.number) == ("user:test", "lost laptop", 0)


@pytest.mark.parametrize("jti", ["root", "child", "grandchild", "great"])
def test_a_grant_ends_with_any_that_it_descends_from(jti: str) -> None:
    revoked = Revoked([order("grant", jti)])
    assert revoked.covers(GREAT)
    assert not revoked.covers(OTHER)


@pytest.mark.parametrize("agent", ["bot", "helper", "third"])
def test_a_grant_ends_with_any_agent_that_has_a_part_in_it(agent: str) -> None:
    revoked = Revoked([order("agent", agent)])
    assert revoked.covers(GREAT)
    assert revoked.covers(ROOT) == (agent == "bot")


def test_kinds_are_not_mixed_up() -> None:
    for kind in ("grant", "agent", "scope"):
        others = {"grant": "bot", "agent": "a.read", "scope": "root"}
        assert not Revoked([order(kind, others[kind])]).covers(ROOT)


@pytest.mark.parametrize(("kind", "value"), [("agent", "bot"), ("scope", "a.read"), ("all", "")])
def test_the_last_moment_counts_in_whatever_order_it_came(kind: RevocationKind, value: str) -> None:
    early, late = order(kind, value, now=NOW), order(kind, value, now=NOW + 100)
    between = grant("between", issued_at=NOW + 50)
    assert Revoked([early, late]).covers(between)
    assert Revoked([late, early]).covers(between)
    assert not Revoked([early]).covers(between)
    assert Revoked([early]).covers(replace(between, issued_at=NOW))


def test_timeless_asks_for_everything_whenever_issued() -> None:
    future = grant("future", issued_at=NOW + 10_000)
    assert timeless(order("all")).covers(future)
    assert timeless(order("agent", "bot")).covers(future)
    assert not timeless(order("agent", "other")).covers(future)


def test_only_what_is_over_is_forgotten() -> None:
    revoked = Revoked(order("grant", f"g{n}") for n in range(999))
    revoked.add(order("agent", "bot"))
    revoked.forget(NOW + LONGEST_LIFETIME)
    assert len(revoked) == 1000
    for n in range(1000):
        revoked.add(order("grant", f"h{n}", now=NOW + 7200))
    revoked.forget(NOW + LONGEST_LIFETIME + 1)
    assert len(revoked) == 1000
    assert revoked.covers(replace(CHILD, jti="h5"))
    assert not revoked.covers(ROOT)
