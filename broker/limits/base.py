"""Where requests are counted: in this process, with the others of this machine, or of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from broker.limits.quota import Cap, Exceeded, Quota


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A request that has been counted, and the places that it takes while it is under way.

    `id` tells it from every other where places are shared.
    """

    places: tuple[Cap, ...] = ()
    id: str = ""


FREE: Final = Ticket()
"""The ticket of requests that take no place."""


class Counts(Protocol):
    """Count requests against quotas, each all at once or not at all.

    What is refused has used up nothing. A place that is taken is given back once; of a process
    that dies the places are given back for it.
    """

    def take_now(self, quota: Quota) -> Ticket | Exceeded | None:
        """Count a request without waiting for anything; None if that cannot be done."""
        ...

    async def take(self, quota: Quota) -> Ticket | Exceeded:
        """Count a request; raise `LimitsUnavailable` or `StorageError` if it cannot be known."""
        ...

    def give_back(self, ticket: Ticket) -> None:
        """Give back the places of a request that has ended; does not wait."""
        ...

    async def keep(self) -> None:
        """Say for ever, to whoever shares the counts, that what was taken is still in use."""
        ...

    async def check(self) -> None:
        """Raise `LimitsUnavailable`, saying why, if nothing can be counted now."""
        ...

    async def close(self) -> None:
        """Give back what is still taken, and let go of connections and files."""
        ...
