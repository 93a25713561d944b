"""Count what the control plane does, for Prometheus.

Labels hold words of ours alone: no name, address or token that a caller could make up, so that
nobody can grow the metrics, and nothing in them is secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from broker.token_request import CLIENT_CREDENTIALS, EXCHANGE, JWT_BEARER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric
    from starlette.requests import Request

    from broker.leases.base import LeaseStats
    from broker.model import LeaseStanding

_GRANTS: Final = {
    EXCHANGE: "token_exchange",
    JWT_BEARER: "jwt_bearer",
    CLIENT_CREDENTIALS: "client_credentials",
}


class TokenMetrics:
    """Count token requests by grant and result, and time them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests: Final = Counter(
            "broker_token_requests",
            "Requests to the token endpoint, by grant and by result (issued, or the error code).",
            ("grant", "result"),
            registry=registry,
        )
        self._seconds: Final = Histogram(
            "broker_token_request_seconds",
            "Time from the request's head to its answer.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )

    def count(self, grant_type: str | None, result: str, seconds: float) -> None:
        """Count one answered request; `result` is `issued` or one of our error codes."""
        self._requests.labels(_GRANTS.get(grant_type or "", "other"), result).inc()
        self._seconds.observe(seconds)


_LEASES: Final[tuple[LeaseStanding, ...]] = (
    *("intent", "minted", "delivered", "used", "revoking", "unrevocable"),
)


class CredentialMetrics(Collector):
    """Count requests for credentials by result, and show where leases stand.

    `stats` is the worker's own count; the numbers by state are of all workers that share its
    store.
    """

    def __init__(self, registry: CollectorRegistry, stats: LeaseStats) -> None:
        self._stats: Final = stats
        self._requests: Final = Counter(
            "broker_credential_requests",
            "Requests for credentials, by result (issued, abandoned, or the error code).",
            ("result",),
            registry=registry,
        )
        registry.register(self)

    def count(self, result: str) -> None:
        """Count one answered request."""
        self._requests.labels(result).inc()

    def collect(self) -> Iterator[Metric]:
        """Yield what is known of leases now (`prometheus_client.registry.Collector`)."""
        states = GaugeMetricFamily(
            "broker_leases", "Credentials that are not over, by state.", labels=("state",)
        )
        for state in _LEASES:
            states.add_metric((state,), self._stats.states.get(state, 0))
        yield states
        ends = CounterMetricFamily(
            "broker_lease_revocations",
            "Attempts to revoke a credential, by result; what has failed is tried again.",
            labels=("result",),
        )
        ends.add_metric(("revoked",), self._stats.revoked)
        ends.add_metric(("failed",), self._stats.failed)
        yield ends


class MetricsEndpoint:
    """Show what a registry or another collector has, in Prometheus's text format."""

    def __init__(self, shown: Collector) -> None:
        self._shown: Final = shown

    async def show(self, _request: Request) -> Response:
        """Answer with every metric of the registry."""
        body = generate_latest(self._shown)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})
