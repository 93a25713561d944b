"""Envoy, asking an authorisation server about each request (`ext_authz`) before it passes it on.

Both run on the proxy's core, and the time of both counts.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from bench.interpreter import PYTHON
from bench.peers.base import Peer, Setting, installed
from bench.processes import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"


@contextmanager
def envoy_ext_authz(setting: Setting) -> Iterator[Peer]:
    """Run Envoy with one worker and its authorisation server."""
    port, deciding = free_port(), free_port()
    config = setting.folder / "envoy.json"
    config.write_text(json.dumps(_config(port, deciding, setting.upstream)))
    server = [PYTHON, "-m", "bench.peers.ext_authz", str(deciding)]
    server += [str(setting.jwks), str(setting.rules)]
    envoy = [installed("envoy"), "-c", str(config), "--concurrency", "1"]
    envoy += ["--disable-hot-restart", "-l", "error"]
    environment = os.environ | {"BENCH_KEY": setting.key}
    with (
        running(server, deciding, setting.core, environment) as judge,
        running(envoy, port, setting.core) as proxy,
    ):
        yield Peer(port, (proxy, judge))


def _config(port: int, deciding: int, upstream: int) -> dict[str, Any]:
    authz = {
        "@type": f"{_TYPES}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "http_service": {
            "server_uri": {
                "uri": f"http://127.0.0.1:{deciding}",
                "cluster": "deciding",
                "timeout": "5s",
            },
            "authorization_response": {
                "allowed_upstream_headers": {"patterns": [{"exact": "authorization"}]}
            },
        },
    }
    route = {
        "match": {"prefix": "/api/"},
        "route": {"cluster": "service", "prefix_rewrite": "/", "timeout": "30s"},
    }
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [
            {"name": "envoy.filters.http.ext_authz", "typed_config": authz},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
            },
        ],
    }
    chain = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    return {
        "static_resources": {
            "listeners": [{"name": "all", "address": _at(port), "filter_chains": [chain]}],
            "clusters": [_cluster("service", upstream), _cluster("deciding", deciding)],
        }
    }


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _at(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
