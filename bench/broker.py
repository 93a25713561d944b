"""The broker under measurement: `broker serve` as people run it, with everything on."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from sysconfig import get_path
from typing import TYPE_CHECKING, Final

from bench.processes import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

COMMAND: Final = os.path.join(get_path("scripts"), "broker")  # noqa: PTH118 - argv takes text

_POLICY: Final = """
services:
  api:
    provider: http_api
    base_url: http://127.0.0.1:{upstream}
    insecure_http: true
    allow_private: true
    scrub: {scrub}
    credential: {{type: bearer, secret: "env:BENCH_KEY"}}
scopes:
  api.work:
    service: api
    allow:
{allow}
    deny:
      - "* /v1/refunds/*/cancel"
agents:
  bench-agent:
    trust: [{{source: local, claims: {{sub: bench-agent}}}}]
    scopes: [api.work]
    max_ttl: 1h
"""
_PATHS: Final = [
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
    """A running broker: its process, its gateway's port, a task token, and how to command it."""

    pid: int
    port: int
    token: str
    home: Path
    environment: Mapping[str, str]


@contextmanager
def running_broker(
    folder: Path, core: int, upstream: int, key: str, *, scrub: bool = True
) -> Iterator[Broker]:
    """Run a broker whose policy has 21 rules, and take out a task token."""
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
            [COMMAND, *arguments], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    command("init", "--yes", "--agent", "bench-agent")
    (home / "policies" / "bench.yaml").write_text(_policy(upstream, scrub=scrub))
    with running([COMMAND, "serve"], gateway, core, environment) as pid:
        token = command("token", "--scope", "api.work", "--ttl", "1h")
        yield Broker(pid, gateway, token, home, environment)


def _policy(upstream: int, *, scrub: bool) -> str:
    rules = [f'"{method} /v1/{path}/*"' for path in _PATHS for method in ("GET", "POST")]
    allow = "\n".join(f"      - {rule}" for rule in rules)
    return _POLICY.format(upstream=upstream, allow=allow, scrub="on" if scrub else "off")
