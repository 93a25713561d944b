"""Decide who makes way where there are more connections than there is room for.

An idle connection costs its agent nothing, so whoever opens thousands of them must not keep others
out: the newcomer gets in, and who has been idle for the longest goes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

_AT_ONCE: Final = 32
"""The most that are closed for one newcomer, so that not each of a crowd has to look for one."""


class Idler(Protocol):
    """A connection that may have nothing to do."""

    @property
    def standing(self) -> tuple[int, float] | None:
        """How good its claim to its place is, the least first; None while it serves a request."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


def standing(
    *, closing: bool, served: bool, in_head: bool, deadline: float | None
) -> tuple[int, float]:
    """Return how good a claim to its place a connection has that serves no request.

    Best has who was served before and is idle, the shorter the better (`deadline` is when that
    will have been too long); then who is sending a head, who has never asked for anything, and
    last who has been refused and still lingers.
    """
    rank = 0 if closing else 2 if in_head else 3 if served else 1
    return rank, math.inf if deadline is None else deadline


def make_way(idlers: Iterable[Idler]) -> list[Idler]:
    """Close some of those that do nothing; return them, none if all are busy."""
    ranked = [(one.standing, number, one) for number, one in enumerate(idlers)]
    idle = sorted((rank, number, one) for rank, number, one in ranked if rank is not None)
    going = [one for *_, one in idle[: min(_AT_ONCE, max(1, len(ranked) // 8))]]
    for one in going:
        one.abort()
    return going
