"""Match numbers against `{max: ...}`: from 0 up to it, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_LARGEST: Final = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly (RFC 8259, 6)."""

_PLAIN: Final = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,16})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number from 0 to `limit`."""

    limit: int

    def matches(self, text: str) -> bool:
        """Tell whether `text` is such a number, in plain digits without sign or exponent."""
        return _PLAIN.fullmatch(text) is not None and Decimal(text) <= self.limit

    def includes(self, value: object) -> bool:
        """Tell whether `value`, as exact JSON gives it, is such a number; true is none."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            return False
        return 0 <= value <= self.limit


def parse_at_most(value: object) -> AtMost:
    """Return the bound that `value` is.

    Raises:
        ValueError: when it is none; the text says what to write.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
        raise ValueError("expected a whole number after 'max:', such as 5000")
    return AtMost(value)
