"""The control plane as a FastAPI application, put together from the parts it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route

from broker.api.container import CONTAINER_PATH, ContainerEndpoint
from broker.api.credentials import CredentialEndpoint
from broker.api.guard import Guard
from broker.api.health import HealthEndpoints
from broker.api.metadata import documents
from broker.api.metrics import CredentialMetrics, MetricsEndpoint, TokenMetrics
from broker.api.problems import on_http_exception
from broker.api.status import StatusEndpoint
from broker.api.token import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector
    from starlette.types import ASGIApp

    from broker.api.health import Health
    from broker.exchange import Exchange
    from broker.leases.minting import Leases
    from broker.token_status import TokenStatus


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What the control plane serves.

    `issuer` is the broker's public URL, byte for byte what its tokens say. `jwks` returns the
    published keys, `probes` are asked for `/readyz`, `registry` is what `/metrics` shows, unless
    what is to be `shown` is more than that;
    without `leases` no credentials are handed out, and without `status` nobody can ask about
    task tokens, nor revoke them.
    """

    exchange: Exchange
    issuer: str
    jwks: Callable[[], Mapping[str, Any]]
    probes: Mapping[str, Callable[[], Awaitable[Health]]]
    registry: CollectorRegistry
    leases: Leases | None = None
    status: TokenStatus | None = None
    shown: Collector | None = None


def create_app(control: ControlPlane) -> FastAPI:
    """Return the application, without documentation pages."""
    app = FastAPI(
        title="Agent token broker",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would send the proof once more
    )
    app.add_middleware(Guard)
    app.add_exception_handler(HTTPException, on_http_exception)
    token = TokenEndpoint(control.exchange, TokenMetrics(control.registry))
    prefix = urlsplit(control.issuer).path.rstrip("/")
    endpoints: dict[str, ASGIApp] = {"/token": token}
    if control.status is not None:
        endpoints["/introspect"] = StatusEndpoint(control.status, "introspect")
        endpoints["/revoke"] = StatusEndpoint(control.status, "revoke")
    # Under the issuer's own path too: a reverse proxy may pass it on or cut it off.
    endpoints |= {f"{prefix}{path}": endpoint for path, endpoint in endpoints.items()}
    endpoints["/v1/oauth/token"] = token
    for path, endpoint in endpoints.items():
        app.router.routes.append(Route(path, endpoint, include_in_schema=False))
    if control.leases is not None:
        metrics = CredentialMetrics(control.registry, control.leases.stats)
        credentials = CredentialEndpoint(control.leases, metrics)
        app.router.routes.append(Route("/credentials", credentials, include_in_schema=False))
        container = ContainerEndpoint(control.leases, metrics)
        app.router.routes.append(Route(CONTAINER_PATH, container, include_in_schema=False))
    health = HealthEndpoints(control.probes)
    pages = {
        **documents(control.issuer, control.jwks),
        "/healthz": health.live,
        "/readyz": health.ready,
        "/metrics": MetricsEndpoint(control.shown or control.registry).show,
    }
    for path, page in pages.items():
        app.router.add_route(path, page, methods=["GET"], include_in_schema=False)
    return app
