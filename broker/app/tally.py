"""Metrics of all workers together, for a scrape that reaches any one of them.

Each worker publishes its own on the scoreboard. Counters and histograms are added up, and those
of a worker that has died go on in its successor: the sum never falls while the broker runs.
Gauges are added up too, over the workers that are heard of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from broker.app.scoreboard import SUPERVISOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from broker.app.scoreboard import Scoreboard

_log: Final = logging.getLogger(__name__)

PUBLISH_EVERY: Final = 1.0
"""Seconds by which another worker's numbers may be late."""

SILENT_AFTER: Final = 5.0
"""Seconds after which a worker that publishes nothing is not counted among those that live."""

OF_ALL: Final = frozenset({"broker_leases"})
"""Gauges that every worker reads from the store that all share: not to be added up."""

_GROWS: Final = frozenset({"counter", "histogram"})
_BEGAN: Final = "_created"


@dataclass(slots=True)
class Published:
    """What a process has published.

    `at` is when, in seconds of the monotonic clock, None for what never grows old; `unwell` is
    why a worker does not do its work as it should, by its parts; `families` are metrics as
    `[name, type, documentation, [[sample, labels, value], ...]]`.
    """

    at: float | None = None
    unwell: Mapping[str, str] = field(default_factory=dict)
    families: list[list[Any]] = field(default_factory=list)

    def is_silent(self, now: float) -> bool:
        """Say whether it was published too long ago to be true of the present."""
        return self.at is not None and now - self.at > SILENT_AFTER


def publish(
    scoreboard: Scoreboard,
    seat: int,
    metrics: Iterable[Metric],
    *,
    at: float | None = None,
    unwell: Mapping[str, str] | None = None,
) -> None:
    """Put metrics on the scoreboard."""
    families = [
        [one.name, one.type, one.documentation, [[s.name, s.labels, s.value] for s in one.samples]]
        for one in metrics
    ]
    scoreboard.write(seat, orjson.dumps([at, unwell or {}, families]))


def published(scoreboard: Scoreboard, seat: int) -> Published | None:
    """Return what a process has last published, or None."""
    content = scoreboard.read(seat)
    return Published(*orjson.loads(content)) if content else None


class Tally(Collector):
    """One worker's part in the metrics of all; show it instead of the worker's own registry.

    `unwell` returns why this worker does not do its work as it should, by its parts.
    """

    def __init__(
        self,
        own: Collector,
        scoreboard: Scoreboard,
        seat: int,
        unwell: Callable[[], Mapping[str, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own: Final = own
        self._scoreboard: Final = scoreboard
        self._seat: Final = seat
        self._unwell: Final = unwell
        self._clock: Final = clock
        before = published(scoreboard, seat)
        self._inherited: Final = [] if before is None else before.families

    def publish(self) -> None:
        """Publish this worker's numbers, with those of its predecessors."""
        sums = _Sums()
        sums.add(self._inherited, lambda _, kind: kind in _GROWS)
        sums.add(_families(self._own.collect()))
        at, unwell = self._clock(), self._unwell()
        publish(self._scoreboard, self._seat, sums.metrics(), at=at, unwell=unwell)

    async def keep_published(self) -> None:
        """Publish for ever, and once more when cancelled."""
        try:
            while True:
                self._try_to_publish()
                await asyncio.sleep(PUBLISH_EVERY)
        finally:
            self._try_to_publish()

    def _try_to_publish(self) -> None:
        try:
            self.publish()
        except Exception:  # noqa: BLE001 - metrics are no reason to stop anything
            _log.exception("this worker's numbers could not be published")

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all (`prometheus_client.registry.Collector`).

        What is shown has been published before: a successor begins with no less.
        """
        self.publish()
        now = self._clock()
        sums = _Sums()
        for seat in (self._seat, *self._others()):
            found = published(self._scoreboard, seat)
            if found is not None:
                live, own = not found.is_silent(now), seat == self._seat
                sums.add(found.families, _counted(own=own, live=live))
        return sums.metrics()

    def unwell_others(self) -> Iterator[tuple[int, str]]:
        """Yield each other worker that is not as it should be, and why."""
        now = self._clock()
        for seat in self._scoreboard.workers:
            found = published(self._scoreboard, seat)
            if seat == self._seat:
                continue
            if found is None or found.is_silent(now):
                yield seat, f"has not been heard of for {SILENT_AFTER:.0f} s"
            else:
                for part, reason in found.unwell.items():
                    yield seat, f"{part}: {reason}"

    def _others(self) -> list[int]:
        return [seat for seat in (*self._scoreboard.workers, SUPERVISOR) if seat != self._seat]


def _families(metrics: Iterable[Metric]) -> Iterator[list[Any]]:
    for one in metrics:
        yield [one.name, one.type, one.documentation, [s[:3] for s in one.samples]]


def _counted(*, own: bool, live: bool) -> Callable[[str, str], bool]:
    def counted(name: str, kind: str) -> bool:
        return kind in _GROWS or (live and (own or name not in OF_ALL))

    return counted


class _Sums:
    """Metrics of the same name and labels, added up."""

    def __init__(self) -> None:
        self._families: Final[dict[str, tuple[str, str, dict[Any, float]]]] = {}

    def add(
        self, families: Iterable[list[Any]], counted: Callable[[str, str], bool] | None = None
    ) -> None:
        for name, kind, documentation, samples in families:
            if counted is not None and not counted(name, kind):
                continue
            _, _, sums = self._families.setdefault(name, (kind, documentation, {}))
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                if key not in sums:
                    sums[key] = value
                elif sample.endswith(_BEGAN):
                    sums[key] = min(sums[key], value)
                else:
                    sums[key] += value

    def metrics(self) -> Iterator[Metric]:
        for name, (kind, documentation, sums) in self._families.items():
            metric = Metric(name, documentation, kind)
            for (sample, labels), value in sums.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
