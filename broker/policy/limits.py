"""Read what a policy says under `limits:`: rates, counts and sizes, each within reason.

    limits:
      rate: 30/minute            # or a list: [5/second, 1000/day]
      concurrent: 4
      total: 100
      request_bytes: 1MiB
      response_bytes: 64MiB

What makes no sense is refused with the nearest value that does; digits alone are ever repeated.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, get_args

from broker.allowance import LARGEST_BODY, Rate, RateUnit, size_text
from broker.errors import did_you_mean
from broker.settings.values import size

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PER_WINDOW: Final = 100_000
"""The most that a rate may let through: each request in the window is remembered."""

MOST_AT_ONCE: Final = 10_000
MOST_IN_TOTAL: Final = 1_000_000_000

RATE_PATTERN: Final = r"^[1-9][0-9]{0,5}/(second|minute|hour|day)$"

_RATE: Final = re.compile(r"\s*(-?\d{1,12})\s*(?:/|per)\s*([A-Za-z]+)\s*", re.ASCII)
_UNITS: Final[tuple[RateUnit, ...]] = get_args(RateUnit)
_SHORT: Final = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour",
                 "hr": "hour", "d": "day"}  # fmt: skip


def parse_rates(value: object) -> tuple[Rate, ...]:
    """Return one rate or a list of them, the shortest window first.

    Raises:
        ValueError: when one is no rate, or could never be reached beside another.
    """
    given = value if isinstance(value, list | tuple) else [value]
    if not given:
        raise ValueError("an empty list says nothing; write a rate such as 30/minute")
    rates = sorted((_rate(one) for one in given), key=lambda rate: rate.seconds)
    for index, rate in enumerate(rates):
        for longer in rates[index + 1 :]:
            if longer.unit == rate.unit:
                raise ValueError(f"two rates for one {rate.unit}; keep the smaller")
            if rate.amount >= longer.amount:
                raise ValueError(f"{rate} is never reached beside {longer}; leave it out")
    return tuple(rates)


def count_up_to(most: int) -> Callable[[object], int]:
    """Return a reader of whole numbers from 1 to `most`."""

    def read(value: object) -> int:
        number = value if isinstance(value, int) and not isinstance(value, bool) else None
        if number is None or not 1 <= number <= most:
            hint = "" if number is None else f"; the nearest is {1 if number < 1 else most}"
            raise ValueError(f"expected a whole number from 1 to {most}{hint}")
        return number

    return read


def parse_size(value: object) -> int:
    """Return bytes, from 1 to the most that any body may have."""
    try:
        read = size(value)
    except ValueError as error:
        raise ValueError(f"expected {error}, of at least 1 byte") from None
    if read > LARGEST_BODY:
        most = size_text(LARGEST_BODY)
        raise ValueError(f"is more than any body may have; the nearest is {most}")
    return read


def _rate(value: object) -> Rate:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            "expected a rate such as 30/minute: a whole number, '/', and second, minute, hour "
            "or day"
        )
    amount, unit = int(match[1]), _unit(match[2])
    if not 1 <= amount <= MOST_PER_WINDOW:
        nearest = Rate(1 if amount < 1 else MOST_PER_WINDOW, unit)
        raise ValueError(
            f"expected from 1 to {MOST_PER_WINDOW} requests in a window; the nearest is {nearest}"
        )
    rate = Rate(amount, unit)
    if value != str(rate):
        raise ValueError(f"expected a rate such as 30/minute; did you mean {str(rate)!r}?")
    return rate


def _unit(word: str) -> RateUnit:
    meant = _SHORT.get(word.lower(), word.lower().removesuffix("s"))
    for unit in _UNITS:
        if meant == unit:
            return unit
    hint = did_you_mean(meant, _UNITS)
    raise ValueError(f"expected so many requests in a second, minute, hour or day{hint}")
