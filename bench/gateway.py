"""The gateway beside nginx as a proxy and beside what people use instead, in one run.

The proxy under test has core 0 to itself; the upstream and wrk share core 1. The gateway does
all of its work (task token, policy, credential, scrubbing, durable audit trail), nginx swaps a
header, the others do what their modules in `bench/peers` say.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from bench.broker import running_broker
from bench.load import Load, measure
from bench.nginx import certificate, nginx_proxy, nginx_upstream
from bench.peers.start import start_peers
from bench.processes import LOAD_CORE, PROXY_CORE
from bench.turns import GATEWAY, NGINX, Contender, Effort, show, take_turns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bench.broker import Broker

AMONG_PEERS: Final = 32
"""The number of connections at which the other proxies are measured, too."""

CONNECTIONS: Final = (1, AMONG_PEERS, 256)
KEY: Final = "sk_bench_" + "k" * 32
TARGET: Final = "/api/v1/charges/ch_3MqLiJLkdIwHu7ix"
AGENT_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "bench/1.0 (python-httpx)",
}
FORM_HEADERS: Final = {**AGENT_HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
FORM: Final = "&".join(f"metadata[field_{number:02}]={'v' * 24}" for number in range(48))[:2048]

Figures = dict[str, dict[str, Any]]
"""Figures by number of connections."""


def get_1k(
    effort: Effort, wanted: Collection[str]
) -> tuple[Figures, dict[str, Figures], dict[str, str]]:
    """Measure GET of 1 KB; return the gateway's figures, each peer's, and who was skipped and why.

    `wanted` are the names of the peers to start.
    """
    with _pair() as (upstream, nginx, broker), ExitStack() as stack:
        peers, skipped = start_peers(stack, broker, upstream, KEY, wanted)
        pair = [nginx, _gateway(broker, AGENT_HEADERS)]
        headers = pair[1].headers
        others = [Contender(n, _url(one.port), one.pids, headers) for n, one in peers.items()]
        figures: Figures = {}
        of_peers: dict[str, Figures] = {}
        for connections in CONNECTIONS:
            load = Load(connections, effort.seconds, LOAD_CORE, headers)
            direct = measure(_url(upstream), [broker.pid], load)
            contenders = pair + (others if connections == AMONG_PEERS else [])
            for name, found in take_turns(contenders, connections, effort).items():
                if name == NGINX:
                    continue
                if name == GATEWAY:
                    found["added_p50_ms"] = round(found["p50_ms"] - direct.p50_ms, 3)
                    figures[str(connections)] = found
                else:
                    of_peers[name] = {"get_1k": {str(connections): found}}
                show(f"GET 1 KB, {connections} conn.", name, found)
        return figures, of_peers, skipped


def post_2k(effort: Effort) -> Figures:
    """Measure POST of a form of 2 KB: sent upstream only once its intent is durable."""
    with _pair() as (_, nginx, broker):
        posting = replace(nginx, headers=FORM_HEADERS)
        contenders = [posting, _gateway(broker, FORM_HEADERS)]
        found = take_turns(contenders, AMONG_PEERS, effort, FORM)[GATEWAY]
        show(f"POST 2 KB, {AMONG_PEERS} conn.", GATEWAY, found)
        return {str(AMONG_PEERS): found}


def tls_get_1k(effort: Effort) -> Figures:
    """Measure GET of 1 KB from an upstream that is spoken to over TLS, and verified."""
    with _pair(tls=True) as (_, nginx, broker):
        contenders = [nginx, _gateway(broker, AGENT_HEADERS)]
        found = take_turns(contenders, AMONG_PEERS, effort)[GATEWAY]
        show(f"TLS, GET 1 KB, {AMONG_PEERS} conn.", GATEWAY, found)
        return {str(AMONG_PEERS): found}


@contextmanager
def _pair(*, tls: bool = False) -> Iterator[tuple[int, Contender, Broker]]:
    """Run an upstream, nginx as its proxy and a broker; yield the upstream's port and both."""
    with TemporaryDirectory(prefix="broker-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        proof = certificate(folder) if tls else None
        upstream = stack.enter_context(nginx_upstream(folder, LOAD_CORE, tls=proof))
        port, pid = stack.enter_context(nginx_proxy(folder, PROXY_CORE, upstream, KEY, tls=proof))
        ca_file = proof.authority if proof else None
        broker = running_broker(folder, PROXY_CORE, upstream, KEY, ca_file=ca_file)
        nginx = Contender(NGINX, _url(port), (pid,), AGENT_HEADERS)
        yield upstream, nginx, stack.enter_context(broker)


def _gateway(broker: Broker, headers: dict[str, str]) -> Contender:
    presenting = {**headers, "Authorization": f"Bearer {broker.token}"}
    return Contender(GATEWAY, _url(broker.port), (broker.pid,), presenting)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{TARGET}"
