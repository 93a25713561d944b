from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.waiting import WaitingLine, share

if TYPE_CHECKING:
    from broker.gateway.problems import Refusal
    from broker.gateway.upstream import UpstreamConnection

ROUTE: Any = None


@dataclass
class One:
    """Waits for a connection."""

    agent: str
    number: int = 0
    waiting: bool = True

    def connected(self, connection: UpstreamConnection) -> None:
        raise NotImplementedError(connection)

    def unconnected(self, refusal: Refusal) -> None:
        raise NotImplementedError(refusal)


def everybody(_: str) -> bool:
    return True


def served(line: WaitingLine, count: int) -> list[tuple[str, int]]:
    order = []
    for _ in range(count):
        found = line.next(everybody)
        assert found is not None
        assert isinstance(found[1], One)
        order.append((found[1].agent, found[1].number))
    return order


def test_agents_take_turns() -> None:
    line = WaitingLine(100)
    for number in range(5):
        assert line.join(ROUTE, One("noisy", number))
    for agent in ("a", "b"):
        assert line.join(ROUTE, One(agent))
    assert served(line, 4) == [("noisy", 0), ("a", 0), ("b", 0), ("noisy", 1)]
    assert line.join(ROUTE, One("a", 1))
    assert served(line, 4) == [("noisy", 2), ("a", 1), ("noisy", 3), ("noisy", 4)]
    assert line.next(everybody) is None
    assert len(line) == 0


def test_no_agent_takes_every_place() -> None:
    line = WaitingLine(8)
    assert [line.join(ROUTE, One("noisy")) for _ in range(8)] == [True] * 6 + [False] * 2
    assert [line.join(ROUTE, One("a")) for _ in range(3)] == [True, True, False]
    assert len(line) == 8


def test_who_may_not_have_one_is_passed_over_and_keeps_its_place() -> None:
    line = WaitingLine(8)
    for agent in ("noisy", "a"):
        line.join(ROUTE, One(agent))
    found = line.next(lambda agent: agent != "noisy")
    assert found is not None
    assert found[1].agent == "a"
    assert line.next(lambda _: False) is None
    assert served(line, 1) == [("noisy", 0)]


def test_who_has_given_up_is_left_out() -> None:
    line = WaitingLine(8)
    line.join(ROUTE, One("a", 0, waiting=False))
    line.join(ROUTE, One("a", 1))
    line.join(ROUTE, One("b", 0, waiting=False))
    assert served(line, 1) == [("a", 1)]
    assert line.next(everybody) is None
    assert len(line) == 0


def test_a_share_leaves_something_unless_there_is_one_place() -> None:
    assert [share(most) for most in (1, 2, 3, 4, 8, 4096)] == [1, 2, 3, 3, 6, 3072]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_each_agents_own_stay_in_their_order(joining: list[tuple[str, bool]]) -> None:
    line = WaitingLine(1000)
    for number, (agent, waiting) in enumerate(joining):
        assert line.join(ROUTE, One(agent, number, waiting))
    wanted = sum(waiting for _, waiting in joining)
    order = served(line, wanted)
    assert line.next(everybody) is None
    for agent in "abc":
        own = [number for name, number in order if name == agent]
        assert own == sorted(own)
        assert len(own) == sum(waiting for name, waiting in joining if name == agent)
