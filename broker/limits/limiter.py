"""Ask whether a request is within its limits, and count what was refused for Prometheus."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from broker.errors import LimitsUnavailable, StorageError
from broker.limits.quota import Exceeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from broker.limits.base import Counts, Ticket
    from broker.limits.quota import LimitKind, Quota

GIVEN_BACK_WITHIN: Final = 0.03
"""Seconds that a place may be on its way back where counts are shared."""

Where = Literal["gateway", "credentials", "token"]


class Limiter(Collector):
    """Hold requests against their quotas, by the counts that this broker keeps or shares.

    Register it with a `CollectorRegistry`; its labels are words of ours alone.
    """

    def __init__(self, counts: Counts) -> None:
        self.counts: Final = counts
        self._refusals: Final[defaultdict[tuple[Where, str], int]] = defaultdict(int)

    def take_now(self, quota: Quota, where: Where) -> Ticket | Exceeded | None:
        """Count a request without waiting for anything; None if `take` must be awaited."""
        outcome = self.counts.take_now(quota)
        if isinstance(outcome, Exceeded):
            self.refused(where, outcome.kind)
        return outcome

    async def take(self, quota: Quota, where: Where) -> Ticket | Exceeded:
        """Count a request, or say which limit is used up.

        Raises `LimitsUnavailable` if that cannot be known now.
        """
        try:
            outcome = self.counts.take_now(quota) or await self.counts.take(quota)
            if isinstance(outcome, Exceeded) and outcome.kind == "concurrent":
                # Whoever asks one by one may be ahead of a place that is just being given back.
                await asyncio.sleep(GIVEN_BACK_WITHIN)
                outcome = await self.counts.take(quota)
        except (LimitsUnavailable, StorageError) as error:
            self._refusals[where, "unavailable"] += 1
            raise LimitsUnavailable(str(error)) from None
        if isinstance(outcome, Exceeded):
            self.refused(where, outcome.kind)
        return outcome

    def give_back(self, ticket: Ticket) -> None:
        """Give back the places of a request that has ended."""
        if ticket.places:
            self.counts.give_back(ticket)

    def refused(self, where: Where, kind: LimitKind) -> None:
        """Count a refusal."""
        self._refusals[where, kind] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the refusals (`prometheus_client.registry.Collector`)."""
        family = CounterMetricFamily(
            "broker_limit_refusals",
            "Requests that a limit refused or cut short, by where and by the limit's kind; "
            "unavailable: they could not be counted.",
            labels=("where", "limit"),
        )
        for labels, number in list(self._refusals.items()):
            family.add_metric(labels, number)
        yield family


async def exceeded(limiter: Limiter | None, quota: Quota | None, where: Where) -> Exceeded | None:
    """Count what takes no time, and so no place; return the limit that refuses it.

    Raises `LimitsUnavailable` if that cannot be known now, as without a limiter.
    """
    if quota is None or not quota.counted:
        return None
    if limiter is None:
        raise LimitsUnavailable("nothing counts what policy limits")
    outcome = await limiter.take(quota, where)
    return outcome if isinstance(outcome, Exceeded) else None
