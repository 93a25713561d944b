from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from broker.gateway.crowding import make_way, standing


@dataclass
class One:
    """A connection; it does something unless it has a standing."""

    standing: tuple[int, float] | None
    aborted: bool = False

    def abort(self) -> None:
        self.aborted = True


def stand(
    *, closing: bool = False, served: bool = False, in_head: bool = False, due: float | None = 9.0
) -> tuple[int, float]:
    return standing(closing=closing, served=served, in_head=in_head, deadline=due)


def test_who_stands_better() -> None:
    order = [
        stand(closing=True, served=True),
        stand(),
        stand(due=None),
        stand(in_head=True),
        stand(served=True, due=1.0),
        stand(served=True, due=2.0),
        stand(served=True, due=None),
    ]
    assert order == sorted(order)
    assert order[-1][1] == math.inf


@pytest.mark.parametrize(("size", "going"), [(1, 1), (3, 1), (16, 2), (1000, 32)])
def test_the_worst_make_way_a_few_at_a_time(size: int, going: int) -> None:
    ones = [One(stand(served=True, due=float(number))) for number in reversed(range(size))]
    gone = make_way(ones)
    assert [one.standing for one in gone if isinstance(one, One)] == [
        stand(served=True, due=float(number)) for number in range(going)
    ]
    assert sum(one.aborted for one in ones) == going


def test_nobody_makes_way_who_is_busy() -> None:
    busy = [One(None) for _ in range(100)]
    assert make_way(busy) == []
    idle = One(stand())
    assert make_way([*busy, idle]) == [idle]
    assert not any(one.aborted for one in busy)
    assert make_way([]) == []
