"""How much of something may be used: what policies say under `limits:`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

RateUnit = Literal["second", "minute", "hour", "day"]

LARGEST_BODY: Final = 512 << 30
"""Bytes that no limit on bodies may exceed: more than any one body has."""

_SECONDS: Final[Mapping[RateUnit, int]] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_SIZES: Final = (("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0))


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in any window of one `unit`."""

    amount: int
    unit: RateUnit

    @property
    def seconds(self) -> int:
        """How long the window is."""
        return _SECONDS[self.unit]

    def __str__(self) -> str:
        return f"{self.amount}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of something may be used; what is None, or an empty `rates`, is not limited.

    `rates` are for any window of time, `concurrent` is for any moment, `total` for the whole
    life of a grant; `request_bytes` and `response_bytes` are for each request's bodies.
    """

    rates: tuple[Rate, ...] = ()
    concurrent: int | None = None
    total: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Each limit as people read it, such as `rate 30/minute` and `request_bytes 1MiB`."""
        counts = {"concurrent": self.concurrent, "total": self.total}
        sizes = {"request_bytes": self.request_bytes, "response_bytes": self.response_bytes}
        return (
            *(f"rate {rate}" for rate in self.rates),
            *(f"{kind} {most}" for kind, most in counts.items() if most is not None),
            *(f"{kind} {size_text(most)}" for kind, most in sizes.items() if most is not None),
        )


def size_text(number: int) -> str:
    """Return a number of bytes as policies write it, exactly: `1MiB`, `1500B`."""
    unit, shift = next(one for one in _SIZES if number % (1 << one[1]) == 0)
    return f"{number >> shift}{unit}"
