"""Count what the control plane does, for Prometheus.

Labels hold words of ours alone: no name, address or token that a caller could make up, so that
nobody can grow the metrics, and nothing in them is secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from broker.token_request import CLIENT_CREDENTIALS, EXCHANGE, JWT_BEARER

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

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


class MetricsEndpoint:
    """Show a registry's metrics in Prometheus's text format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry: Final = registry

    async def show(self, _request: Request) -> Response:
        """Answer with every metric of the registry."""
        body = generate_latest(self._registry)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})
