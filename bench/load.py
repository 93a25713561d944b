"""Load from wrk, and what it and the kernel say of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

from bench.processes import cpu_seconds, program, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LINE: Final = {
    "p50": re.compile(r"^\s+50%\s+([\d.]+)(us|ms|s)\s*$", re.MULTILINE),
    "p99": re.compile(r"^\s+99%\s+([\d.]+)(us|ms|s)\s*$", re.MULTILINE),
}
_REQUESTS: Final = re.compile(r"^\s+(\d+) requests in ([\d.]+)(ms|s|m),", re.MULTILINE)
_UNIT: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_BAD: Final = re.compile(r"Non-2xx|Socket errors")


@dataclass(frozen=True)
class Measured:
    """Figures of one run: requests a second, latencies in ms, processor time in us a request."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    rss_mib: float


@dataclass(frozen=True)
class Load:
    """What to send: connections, seconds, the core to send from, headers, and a body to post.

    Without a `body` it is GET that is sent.
    """

    connections: int
    seconds: int
    core: int
    headers: Mapping[str, str]
    body: str | None = None


def measure(url: str, pids: Sequence[int], load: Load, *, warm_up: int = 1) -> Measured:
    """Send load to a server after a warm-up; `pids` are the processes whose time counts.

    Raises RuntimeError if any answer was not a success: a refusal is cheap.
    """
    if warm_up:
        _wrk(url, load, warm_up)
    before = cpu_seconds(*pids)
    output = _wrk(url, load, load.seconds)
    used = cpu_seconds(*pids) - before
    match = _REQUESTS.search(output)
    if match is None or _BAD.search(output):
        raise RuntimeError(f"the load on {url} did not go well:\n{output}")
    if not int(match[1]):
        raise RuntimeError(f"nothing was answered in {load.seconds} s at {url}")
    requests, seconds = int(match[1]), float(match[2]) * _UNIT[match[3]] / 1000
    return Measured(
        rps=round(requests / seconds),
        p50_ms=_latency("p50", output),
        p99_ms=_latency("p99", output),
        cpu_us=round(used / requests * 1e6, 2),
        rss_mib=round(resident_bytes(*pids) / 2**20, 1),
    )


def _wrk(url: str, load: Load, seconds: int) -> str:
    headers = [part for pair in load.headers.items() for part in ("-H", f"{pair[0]}: {pair[1]}")]
    connections = ["-t", "1", "-c", str(load.connections), "-d", f"{seconds}s"]
    with NamedTemporaryFile("w", suffix=".lua") as script:
        posting: list[str] = []
        if load.body is not None:
            script.write(f"wrk.method = 'POST'\nwrk.body = {json.dumps(load.body)}\n")
            script.flush()
            posting = ["-s", script.name]
        return subprocess.run(
            [program("wrk"), *connections, "--latency", *posting, *headers, url],
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {load.core}),
        ).stdout


def _latency(name: str, output: str) -> float:
    match = _LINE[name].search(output)
    if match is None:
        raise RuntimeError(f"wrk reported no {name}:\n{output}")
    return round(float(match[1]) * _UNIT[match[2]], 3)
