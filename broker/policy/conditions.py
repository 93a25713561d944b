"""Decide whether the claims of a workload identity are those that a policy trusts.

Values are equal only if their types are: `true` is not `1`, and `"1"` is not `1`. An absent
claim matches nothing, and neither does a list or an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.policy.globs import Glob, parse_glob

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSENT: Final = object()
"""What `lookup` returns for a claim that is not there."""

ClaimValue = str | int | bool
Alternative = ClaimValue | Glob
_MOST_DOTS: Final = 8


@dataclass(frozen=True, slots=True)
class Condition:
    """What one claim may be: any of the alternatives."""

    alternatives: tuple[Alternative, ...]

    def accepts(self, value: Any) -> bool:
        """Tell whether `value`, as it stands in the token, is one of the alternatives."""
        return any(equals(one, value) for one in self.alternatives)


def equals(expected: Alternative, value: Any) -> bool:
    """Tell whether `value` is what is expected, in its type too, or like the expected glob."""
    if isinstance(expected, Glob):
        return isinstance(value, str) and expected.matches(value)
    return type(value) is type(expected) and bool(value == expected)


def parse_condition(value: object) -> Condition:
    """Return the condition that a policy writes as a scalar, `{glob: ...}`, or a list of them.

    Raises:
        ValueError: when it is none of these; the text says what to write.
    """
    return Condition(parse_alternatives(value))


def parse_alternatives(value: object) -> tuple[Alternative, ...]:
    """Return what a value may be: a scalar, `{glob: ...}`, or any of a list of them.

    Raises:
        ValueError: when it is none of these; the text says what to write.
    """
    if not isinstance(value, list):
        return (_alternative(value),)
    if not value:
        raise ValueError("an empty list matches nothing; list at least one value")
    alternatives = tuple(_alternative(one) for one in value)
    if len({(type(one), one) for one in alternatives}) != len(alternatives):
        raise ValueError("the list holds the same value twice")
    return alternatives


def _alternative(value: object) -> Alternative:
    if isinstance(value, Mapping):
        if set(value) != {"glob"}:
            raise ValueError("expected a value, a list of values, or {glob: ...}")
        return parse_glob(value["glob"])
    if isinstance(value, str | bool | int) and value != "":
        return value
    raise ValueError("expected text, a whole number, true or false, {glob: ...} or a list of them")


def accepts_all(conditions: Mapping[str, Condition], claims: Mapping[str, Any]) -> bool:
    """Tell whether every condition holds for the claim of its name."""
    return all(condition.accepts(lookup(claims, name)) for name, condition in conditions.items())


def lookup(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim called `name`, or `ABSENT`.

    A name may lead into objects with dots: `kubernetes.io.namespace` is the claim of exactly
    this name, or `namespace` within `kubernetes.io`. If more than one reading finds something,
    whoever chose the claims could choose the reading, so the claim counts as absent.
    """
    readings = _readings(claims, name)
    first = next(readings, ABSENT)
    return first if next(readings, ABSENT) is ABSENT else ABSENT


def _readings(claims: Mapping[str, Any], name: str) -> Iterator[Any]:
    if name in claims:
        yield claims[name]
    # The ways to read a name double with each dot, so a name of very many is read in one.
    dot = name.find(".") if name.count(".") <= _MOST_DOTS else -1
    while dot != -1:
        inner = claims.get(name[:dot])
        if isinstance(inner, Mapping):
            yield from _readings(inner, name[dot + 1 :])
        dot = name.find(".", dot + 1)
