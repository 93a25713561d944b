"""What 2,000 slow clients, or bombs, do to the others and to the gateway's memory.

The good clients are those of GET 1 KB at 32 connections. They are measured alone and then beside
the bad ones, by turns; of memory, the most that was seen beside them counts.
"""

from __future__ import annotations

import socket
import statistics
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from bench.broker import running_broker
from bench.gateway import AGENT_HEADERS, AMONG_PEERS, TARGET
from bench.load import Load, Measured, measure
from bench.nginx import nginx_upstream
from bench.processes import LOAD_CORE, PROXY_CORE, cpu_seconds, free_port, resident_bytes, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.broker import Broker
    from bench.turns import Effort

SLOW: Final = 2000
STUCK_DOWNLOADS: Final = 100
BOMBS: Final = 64
MEMORY_LIMIT_MIB: Final = 64
P99_LIMIT: Final = 2.0

_KEY: Final = "sk_bench_" + "c" * 32
_LARGE: Final = 8 << 20
"""Bytes of a download, so few that all of them together leave the kernel memory for others."""

_TRICKLE_SECONDS: Final = 1.0
_CALM_SECONDS: Final = 0.5
_CALM_SHARE: Final = 0.05
_CALMS: Final = 3
_PATIENCE: Final = 40
_RECEIVE_BUFFER: Final = 8192
_CONNECT_SECONDS: Final = 30.0
_PIECE: Final = b"x" * 65536

Crowd = list[socket.socket]


def slow_clients(effort: Effort) -> dict[str, Any]:
    """Measure beside clients that say nothing, half of a head, or take nothing of a response."""

    def fill(broker: Broker) -> Crowd:
        silent = [_connect(broker.port) for _ in range((SLOW - STUCK_DOWNLOADS) // 2)]
        halves = [_connect(broker.port) for _ in range(SLOW - STUCK_DOWNLOADS - len(silent))]
        for one in halves:
            one.sendall(b"GET /api/v1/charges/1 HTTP/1.1\r\nHost: gateway\r\nX-Slow: ")
        stuck = [_connect(broker.port) for _ in range(STUCK_DOWNLOADS)]
        for one in stuck:
            one.sendall(_request("GET", "/api/v1/files/large", broker.token))
        return silent + halves + stuck

    # A byte of a header now and then is what keeps a slow client from being idle.
    halves = slice((SLOW - STUCK_DOWNLOADS) // 2, SLOW - STUCK_DOWNLOADS)
    return _beside(
        "2,000 slow clients", fill, lambda crowd: _send_each(crowd[halves], b"x"), effort
    )


def bombs(effort: Effort) -> dict[str, Any]:
    """Measure beside heads and bodies without end, and downloads of 8 MiB that nobody reads."""

    def fill(broker: Broker) -> Crowd:
        downloads = [_connect(broker.port) for _ in range(BOMBS)]
        for one in downloads:
            one.sendall(_request("GET", "/api/v1/files/large", broker.token))
        uploads = [_connect(broker.port) for _ in range(BOMBS)]
        endless = ("Transfer-Encoding: chunked",)
        for one in uploads:
            one.sendall(_request("POST", "/sink/v1/files/sink", broker.token, endless))
        heads = [_connect(broker.port) for _ in range(BOMBS)]
        for one in heads:
            one.sendall(b"GET /api/v1/charges/1 HTTP/1.1\r\nHost: gateway\r\n")
        return downloads + uploads + heads

    def feed(crowd: Crowd) -> None:
        _send_each(crowd[BOMBS : 2 * BOMBS], b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
        _send_each(crowd[2 * BOMBS :], b"X-Bomb: %b\r\n" % _PIECE[:1024])

    return _beside("192 bombs", fill, feed, effort)


def _beside(
    what: str,
    fill: Callable[[Broker], Crowd],
    feed: Callable[[Crowd], None],
    effort: Effort,
) -> dict[str, Any]:
    with _gateway() as broker:
        headers = {**AGENT_HEADERS, "Authorization": f"Bearer {broker.token}"}
        load = Load(AMONG_PEERS, effort.seconds, LOAD_CORE, headers)
        url = f"http://127.0.0.1:{broker.port}{TARGET}"
        pairs: list[tuple[Measured, Measured]] = []
        growth = 0.0
        for _ in range(effort.rounds):
            alone = measure(url, [broker.pid], load)
            before = resident_bytes(broker.pid)
            with _highest(broker.pid) as highest, _kept_up(fill(broker), feed):
                _await_calm(broker.pid)
                pairs.append((alone, measure(url, [broker.pid], load)))
            growth = max(growth, (highest[0] - before) / 2**20)
        ratio = statistics.median(beside.p99_ms / alone.p99_ms for alone, beside in pairs)
        alone, beside = min(pairs, key=lambda pair: abs(pair[1].p99_ms / pair[0].p99_ms - ratio))
        print(
            f"{what:<22} p99 of the good clients {beside.p99_ms:.2f} ms against "
            f"{alone.p99_ms:.2f} ms alone ({ratio:.2f} times); memory grew by {growth:.0f} MiB",
            flush=True,
        )
        return {
            "p99_ratio": round(ratio, 3),
            "memory_growth_mib": round(growth, 1),
            "alone": asdict(alone),
            "beside": asdict(beside),
        }


@contextmanager
def _gateway() -> Iterator[Broker]:
    """Run a broker with two services: nginx, and one that reads no body."""
    sink = free_port()
    with TemporaryDirectory(prefix="broker-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, nginx reads files as another user
        files = {"large": b"x" * _LARGE}
        upstream = stack.enter_context(nginx_upstream(folder, LOAD_CORE, files))
        command = [sys.executable, "-m", "bench.upstream", str(sink), "1"]
        stack.enter_context(running(command, sink, LOAD_CORE))
        yield stack.enter_context(running_broker(folder, PROXY_CORE, upstream, _KEY, sink=sink))


def _await_calm(pid: int) -> None:
    """Wait until the buffers are full that the crowd lets fill, so that it is only in the way."""
    calm = 0
    for _ in range(_PATIENCE):
        before = cpu_seconds(pid)
        time.sleep(_CALM_SECONDS)
        calm = calm + 1 if cpu_seconds(pid) - before < _CALM_SECONDS * _CALM_SHARE else 0
        if calm == _CALMS:
            return


@contextmanager
def _kept_up(crowd: Crowd, feed: Callable[[Crowd], None]) -> Iterator[None]:
    """Feed the crowd every second, then close it."""
    over = threading.Event()

    def keep_up() -> None:
        while not over.wait(_TRICKLE_SECONDS):
            feed(crowd)

    thread = threading.Thread(target=keep_up)
    for one in crowd:
        one.setblocking(False)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for one in crowd:
            one.close()


@contextmanager
def _highest(pid: int) -> Iterator[list[int]]:
    """Watch the memory of a process; the list that is yielded holds the most it has occupied."""
    over, highest = threading.Event(), [resident_bytes(pid)]

    def watch() -> None:
        while not over.wait(0.1):
            highest[0] = max(highest[0], resident_bytes(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


def _connect(port: int) -> socket.socket:
    one = socket.socket()
    # What nobody reads shall wait in the gateway, and not in the kernel's memory for all sockets.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    one.settimeout(_CONNECT_SECONDS)
    one.connect(("127.0.0.1", port))
    return one


def _send_each(crowd: Crowd, data: bytes) -> None:
    for one in crowd:
        with suppress(OSError):  # full, or closed by the gateway, as it should be
            one.send(data)


def _request(method: str, target: str, token: str, more: tuple[str, ...] = ()) -> bytes:
    lines = (f"{method} {target} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}")
    return "\r\n".join((*lines, *more, "", "")).encode()
