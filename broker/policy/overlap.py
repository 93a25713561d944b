"""Compare rules with each other: does one cover another, can one request meet both?

Both take segments as a deny rule does: in any spelling, and with or without a trailing slash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from broker.policy.rules import Rule

_ANY_SEGMENTS: Final = "**"
_MOST_STATES: Final = 10_000


def covers(outer: Rule, inner: Rule) -> bool:
    """Tell whether every request that `inner` matches meets `outer`.

    False may also mean that this could not be found out: rules of many `**` are not pursued.
    """
    if outer.method not in {"*", inner.method}:
        return False
    outer_path, inner_path = _normal(outer), _normal(inner)
    start = (0, _closure(outer_path, {0}))
    seen, pending = {start}, [start]
    while pending:
        position, reached = pending.pop()
        if not reached or len(seen) > _MOST_STATES:
            return False
        if position == len(inner_path):
            if len(outer_path) not in reached:
                return False
            continue
        segment = inner_path[position]
        following = [(position + 1, _step(outer_path, reached, segment))]
        if segment == _ANY_SEGMENTS:
            following = [(position + 1, reached), (position, following[0][1])]
        pending += [state for state in following if state not in seen]
        seen.update(following)
    return True


def overlap(one: Rule, other: Rule) -> bool:
    """Tell whether there is a request that meets both rules."""
    if "*" not in {one.method, other.method} and one.method != other.method:
        return False
    first, second = _normal(one), _normal(other)
    seen, pending = {(0, 0)}, [(0, 0)]
    while pending:
        i, j = pending.pop()
        if (i, j) == (len(first), len(second)):
            return True
        following = set()
        any_first = i < len(first) and first[i] == _ANY_SEGMENTS
        any_second = j < len(second) and second[j] == _ANY_SEGMENTS
        if any_first:
            following |= {(i + 1, j)} | ({(i, j + 1)} if j < len(second) else set())
        if any_second:
            following |= {(i, j + 1)} | ({(i + 1, j)} if i < len(first) else set())
        if i < len(first) and j < len(second) and _compatible(first[i], second[j]):
            following.add((i + 1, j + 1))
        pending += following - seen
        seen |= following
    return False


def _normal(rule: Rule) -> tuple[str, ...]:
    folded = tuple(unquote(segment).casefold() for segment in rule.segments)
    return folded[:-1] if len(folded) > 1 and not folded[-1] else folded


def _closure(path: tuple[str, ...], positions: set[int]) -> frozenset[int]:
    reached = set(positions)
    for position in range(len(path)):
        if position in reached and path[position] == _ANY_SEGMENTS:
            reached.add(position + 1)
    return frozenset(reached)


def _step(path: tuple[str, ...], positions: frozenset[int], segment: str) -> frozenset[int]:
    reached = set()
    for position in positions:
        if position == len(path):
            continue
        if path[position] == _ANY_SEGMENTS:
            reached.add(position)
        elif segment != _ANY_SEGMENTS and _includes(path[position], segment):
            reached.add(position + 1)
    return _closure(path, reached)


def _includes(outer: str, inner: str) -> bool:
    """Tell whether every segment like `inner` is like `outer`."""
    if "*" not in outer:
        return outer == inner
    before, _, after = outer.partition("*")
    inner_before, star, inner_after = inner.partition("*")
    if not star:
        long_enough = len(inner) > len(before) + len(after)
        return long_enough and inner.startswith(before) and inner.endswith(after)
    return inner_before.startswith(before) and inner_after.endswith(after)


def _compatible(one: str, other: str) -> bool:
    """Tell whether a segment can be like both."""
    if _ANY_SEGMENTS in {one, other}:
        return False
    if "*" not in one:
        return _includes(other, one)
    if "*" not in other:
        return _includes(one, other)
    before, _, after = one.partition("*")
    other_before, _, other_after = other.partition("*")
    begins = before.startswith(other_before) or other_before.startswith(before)
    return begins and (after.endswith(other_after) or other_after.endswith(after))
