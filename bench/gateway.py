"""The gateway against nginx as a proxy, in the same run on the same cores.

The proxy has core 0 to itself; nginx as the upstream and wrk share core 1. Capacity is
nginx's processor time per request over the gateway's: how much of nginx's load the gateway
would carry on the same core. The gateway does all of its work (task token, policy, credential,
durable audit trail), nginx swaps a header.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.broker import running_broker
from bench.load import Load, Measured, measure
from bench.nginx import nginx_proxy, nginx_upstream

PROXY_CORE: Final = 0
LOAD_CORE: Final = 1
CONNECTIONS: Final = (1, 32, 256)
TARGET: Final = "/api/v1/charges/ch_3MqLiJLkdIwHu7ix"
AGENT_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "bench/1.0 (python-httpx)",
}


def get_1k(seconds: int, rounds: int) -> dict[str, Any]:
    """Measure GET of 1 KB at each number of connections; return the figures by number."""
    key = "sk_bench_" + "k" * 32
    with (
        TemporaryDirectory(prefix="broker-bench-") as name,
        nginx_upstream(Path(name), LOAD_CORE) as upstream,
        nginx_proxy(Path(name), PROXY_CORE, upstream, key) as (nginx_port, nginx_pid),
        running_broker(Path(name), PROXY_CORE, upstream, key) as broker,
    ):
        headers = {**AGENT_HEADERS, "Authorization": f"Bearer {broker.token}"}
        figures = {}
        for connections in CONNECTIONS:
            load = Load(connections, seconds, LOAD_CORE, headers)
            direct = measure(_url(upstream), broker.pid, load)
            # Turn and turn about, so that what else the machine does meets both.
            pairs = [
                (
                    measure(_url(nginx_port), nginx_pid, load),
                    measure(_url(broker.port), broker.pid, load),
                )
                for _ in range(rounds)
            ]
            figures[str(connections)] = _summary(pairs, direct)
            _show(connections, figures[str(connections)])
        return figures


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{TARGET}"


def _summary(pairs: list[tuple[Measured, Measured]], direct: Measured) -> dict[str, Any]:
    # The round of median ratio stands for all: figures of different rounds do not mix.
    ordered = sorted(pairs, key=lambda pair: pair[0].cpu_us / pair[1].cpu_us)
    nginx, ours = ordered[len(ordered) // 2]
    ratios = [round(one.cpu_us / other.cpu_us, 3) for one, other in ordered]
    return {
        "capacity_ratio": round(nginx.cpu_us / ours.cpu_us, 3),
        "capacity_ratios": ratios,
        **asdict(ours),
        "added_p50_ms": round(ours.p50_ms - direct.p50_ms, 3),
        "nginx": asdict(nginx),
    }


def _show(connections: int, figures: dict[str, Any]) -> None:
    nginx = figures["nginx"]
    print(
        f"{connections:>4} connections: {figures['capacity_ratio']:.2f} of nginx's capacity "
        f"({figures['cpu_us']:.1f} us against {nginx['cpu_us']:.1f} us of processor a request); "
        f"{figures['rps']:,.0f} against {nginx['rps']:,.0f} requests/s; "
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms "
        f"(nginx {nginx['p50_ms']:.2f} and {nginx['p99_ms']:.2f})",
        flush=True,
    )
