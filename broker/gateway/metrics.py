"""Count what the gateway does, for Prometheus, at the cost of a few additions a request."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class GatewayMetrics(Collector):
    """Requests by service, decision and status class; their times; open connections.

    Services are those that policy names, so no caller can grow the metrics. Register it with
    a `CollectorRegistry`.
    """

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str | None, str, int | None], int] = defaultdict(int)
        self._times = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self._echoes: dict[str | None, int] = {}
        self._gauges: dict[str, tuple[str, Callable[[], int]]] = {}

    def count(
        self, service: str | None, decision: str, status: int | None, seconds: float | None = None
    ) -> None:
        """Count one request that has ended; `seconds` is how long it took, if it was sent on."""
        self._requests[service, decision, status] += 1
        if seconds is not None:
            self._times[bisect_left(_BOUNDS, seconds)] += 1
            self._seconds += seconds

    def count_echo(self, service: str | None) -> None:
        """Count one response in which a service's credential was found and replaced."""
        self._echoes[service] = self._echoes.get(service, 0) + 1

    def watch(self, name: str, text: str, read: Callable[[], int]) -> None:
        """Report what `read` returns as a gauge."""
        self._gauges[name] = (text, read)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric (`prometheus_client.registry.Collector`)."""
        requests = CounterMetricFamily(
            "broker_gateway_requests",
            "Requests through the gateway, by service, decision and status.",
            labels=("service", "decision", "status"),
        )
        for (service, decision, status), number in list(self._requests.items()):
            requests.add_metric((service or "", decision, str(status or "")), number)
        yield requests
        echoes = CounterMetricFamily(
            "broker_gateway_echoes",
            "Responses in which the service's credential was found and replaced, by service.",
            labels=("service",),
        )
        for service, number in list(self._echoes.items()):
            echoes.add_metric((service or "",), number)
        yield echoes
        total, buckets = 0, []
        for bound, number in zip((*map(str, _BOUNDS), "+Inf"), self._times, strict=True):
            total += number
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            "broker_gateway_request_seconds",
            "Time from an admitted request's head to the end of its answer.",
            buckets=buckets,
            sum_value=self._seconds,
        )
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
