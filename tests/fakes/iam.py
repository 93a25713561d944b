"""What an IAM policy document allows, judged as AWS's manual describes it.

For documents without conditions but one: a denial from a point in time on.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def allows(document: str, action: str, resource: str, now: float) -> bool:
    """Say whether a policy document lets this be done: allowed by one, denied by no statement."""
    matching = [
        one["Effect"]
        for one in json.loads(document)["Statement"]
        if _applies(one, action, resource, now)
    ]
    return "Allow" in matching and "Deny" not in matching


def matches(pattern: str, text: str) -> bool:
    """Say whether a pattern with `*` and `?` covers a text."""
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _applies(statement: dict[str, Any], action: str, resource: str, now: float) -> bool:
    actions = (one.lower() for one in _all(statement["Action"]))
    return (
        any(matches(one, action.lower()) for one in actions)
        and any(matches(one, resource) for one in _all(statement["Resource"]))
        and _holds(statement.get("Condition"), now)
    )


def _all(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _holds(condition: dict[str, Any] | None, now: float) -> bool:
    if condition is None:
        return True
    ((operator, keys),) = condition.items()
    ((key, value),) = keys.items()
    assert (operator, key) == ("DateGreaterThanEquals", "aws:CurrentTime")
    return now >= datetime.fromisoformat(value).timestamp()
