"""The broker under measurement: `broker serve` as people run it, with everything on."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.interpreter import BROKER
from bench.processes import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_POLICY: Final = """
services:
  api:
    provider: http_api
    base_url: {scheme}://127.0.0.1:{upstream}
    {transport}
    allow_private: true
    scrub: {scrub}
    credential: {{type: bearer, secret: "env:BENCH_KEY"}}
{sink}
scopes:
  api.work:
    service: api
    allow:
{allow}
    deny:
      - "* /v1/refunds/*/cancel"
{sink_scope}
agents:
  bench-agent:
    trust: [{{source: local, claims: {{sub: bench-agent}}}}]
    scopes: [{scopes}]
    max_ttl: 1h
"""
_SINK: Final = """
  sink:
    provider: http_api
    base_url: http://127.0.0.1:{port}
    insecure_http: true
    allow_private: true
    credential: {{type: bearer, secret: "env:BENCH_KEY"}}
"""
_SINK_SCOPE: Final = """
  sink.work: {service: sink, allow: ["POST /**"]}
"""
METHODS: Final = ("GET", "POST")
PATHS: Final = [
    "charges",
    "customers",
    "invoices",
    "payouts",
    "products",
    "prices",
    "plans",
    "coupons",
    "events",
    "files",
]


@dataclass(frozen=True)
class Broker:
    """A running broker: its process, its ports, a task token, and how to command it.

    `port` is the gateway's.
    """

    pid: int
    port: int
    control_port: int
    token: str
    home: Path
    environment: Mapping[str, str]


@contextmanager
def running_broker(  # noqa: PLR0913 - where, to whom, with what, and how
    folder: Path,
    core: int,
    upstream: int,
    key: str,
    *,
    scrub: bool = True,
    ca_file: Path | None = None,
    sink: int | None = None,
) -> Iterator[Broker]:
    """Run a broker whose policy has 21 rules, and take out a task token.

    With a `ca_file` the upstream is spoken to over TLS. `sink` is the port of a second service,
    to which anything may be posted.
    """
    home, control, gateway = folder / "home", free_port(), free_port()
    environment = os.environ | {
        "BROKER_HOME": str(home),
        "BROKER_CONTROL_PORT": str(control),
        "BROKER_GATEWAY_PORT": str(gateway),
        "BROKER_LOG_LEVEL": "warning",
        "BENCH_KEY": key,
    }

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [BROKER, *arguments], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    command("init", "--yes", "--agent", "bench-agent")
    (home / "policies" / "bench.yaml").write_text(
        _policy(upstream, scrub=scrub, ca_file=ca_file, sink=sink)
    )
    with running([BROKER, "serve"], gateway, core, environment) as pid:
        asked = ["--scope", "api.work"] + (["--scope", "sink.work"] if sink else [])
        token = command("token", *asked, "--ttl", "1h")
        yield Broker(pid, gateway, control, token, home, environment)


def _policy(upstream: int, *, scrub: bool, ca_file: Path | None, sink: int | None) -> str:
    rules = [f'"{method} /v1/{path}/*"' for path in PATHS for method in METHODS]
    return _POLICY.format(
        upstream=upstream,
        allow="\n".join(f"      - {rule}" for rule in rules),
        scrub="on" if scrub else "off",
        scheme="https" if ca_file else "http",
        sink=_SINK.format(port=sink) if sink else "",
        sink_scope=_SINK_SCOPE if sink else "",
        scopes="api.work, sink.work" if sink else "api.work",
        transport=f"ca_file: {ca_file}" if ca_file else "insecure_http: true",
    )
