"""Streams of events: processor time per event, of the gateway and of nginx without buffering.

Both pass on what the same upstream sends, to the same client, by turns.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import uvloop

from bench.broker import running_broker
from bench.load import Measured
from bench.nginx import nginx_proxy
from bench.processes import (
    LOAD_CORE,
    PROXY_CORE,
    cpu_seconds,
    free_port,
    resident_bytes,
    running,
)
from bench.turns import GATEWAY, NGINX, Effort, show, summary
from bench.upstream import STAMP

STREAMS: Final = 256
INTERVAL: Final = 0.02
"""Seconds between the events of a stream: 50 a second, as a language model streams tokens."""

TARGET: Final = "/api/v1/events/all"
_SETTLE: Final = 1.0
_TIMES: Final = 3
"""As many rounds as of others: at a fifth of a core's load, single ones differ by a half."""


@dataclass
class Received:
    """What the client has received; `delays` are in ms."""

    counting: bool
    delays: list[float]
    began: int = 0


class Listening(asyncio.Protocol):
    """Ask for a stream, and note each event."""

    def __init__(self, received: Received, request: bytes) -> None:
        self._received = received
        self._request = request
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask (`asyncio.Protocol`)."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note how long ago the events in `data` were sent (`asyncio.Protocol`)."""
        received = self._received
        if not self._begun:
            self._begun = True
            if not data.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"a stream was refused: {data[:200]!r}")
            received.began += 1
        if received.counting:
            now = time.monotonic()
            for part in data.split(STAMP)[1:]:
                received.delays.append((now - float(part[: part.index(b",")])) * 1000)


async def _listen(port: int, pids: tuple[int, ...], token: str, seconds: float) -> Measured:
    loop, received = asyncio.get_running_loop(), Received(counting=False, delays=[])
    lines = (f"GET {TARGET} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}", "", "")
    request = "\r\n".join(lines).encode()
    streams = [
        (await loop.create_connection(lambda: Listening(received, request), "127.0.0.1", port))[0]
        for _ in range(STREAMS)
    ]
    await asyncio.sleep(_SETTLE)
    if received.began != STREAMS:
        raise RuntimeError(f"{received.began} of {STREAMS} streams have begun")
    received.counting, started, before = True, time.perf_counter(), cpu_seconds(*pids)
    await asyncio.sleep(seconds)
    used, elapsed = cpu_seconds(*pids) - before, time.perf_counter() - started
    received.counting = False
    memory = resident_bytes(*pids)
    for stream in streams:
        stream.abort()
    ordered = sorted(received.delays)
    if len(ordered) < STREAMS * elapsed / INTERVAL / 2:
        raise RuntimeError(f"only {len(ordered)} events came in {elapsed:.1f} s")
    return Measured(
        rps=round(len(ordered) / elapsed),
        p50_ms=round(ordered[len(ordered) // 2], 3),
        p99_ms=round(ordered[len(ordered) * 99 // 100], 3),
        cpu_us=round(used / len(ordered) * 1e6, 2),
        rss_mib=round(memory / 2**20, 1),
    )


def events(effort: Effort) -> dict[str, dict[str, Any]]:
    """Measure; return the gateway's figures by number of streams, where a request is an event."""
    key, port = "sk_bench_" + "e" * 32, free_port()
    upstream = [sys.executable, "-m", "bench.upstream", str(port), str(INTERVAL)]
    with TemporaryDirectory(prefix="broker-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(running(upstream, port, LOAD_CORE))
        nginx, nginx_pid = stack.enter_context(
            nginx_proxy(folder, PROXY_CORE, port, key, buffering=False)
        )
        broker = stack.enter_context(running_broker(folder, PROXY_CORE, port, key))
        measured: dict[str, list[Measured]] = {NGINX: [], GATEWAY: []}
        for _ in range(_TIMES * effort.rounds):
            for who, at, pid in ((NGINX, nginx, nginx_pid), (GATEWAY, broker.port, broker.pid)):
                seconds = float(max(4, effort.seconds))
                measured[who].append(uvloop.run(_listen(at, (pid,), broker.token, seconds)))
        found = summary(measured[NGINX], measured[GATEWAY])
        show(f"{STREAMS} event streams", GATEWAY, found)
        return {str(STREAMS): found}
