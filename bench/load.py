"""Load from wrk, and what it and the kernel say of it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench.processes import cpu_seconds, program, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINE: Final = {
    "p50": re.compile(r"^\s+50%\s+([\d.]+)(us|ms|s)$", re.MULTILINE),
    "p99": re.compile(r"^\s+99%\s+([\d.]+)(us|ms|s)$", re.MULTILINE),
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
    """What to send: connections, seconds, the core to send from, headers."""

    connections: int
    seconds: int
    core: int
    headers: Mapping[str, str]


def measure(url: str, pid: int, load: Load) -> Measured:
    """Send load to a server after a warm-up; `pid` is the process whose time counts.

    Raises RuntimeError if any answer was not a success: a refusal is cheap.
    """
    _wrk(url, load, 1)
    before = cpu_seconds(pid)
    output = _wrk(url, load, load.seconds)
    used = cpu_seconds(pid) - before
    match = _REQUESTS.search(output)
    if match is None or _BAD.search(output):
        raise RuntimeError(f"the load on {url} did not go well:\n{output}")
    requests, seconds = int(match[1]), float(match[2]) * _UNIT[match[3]] / 1000
    return Measured(
        rps=round(requests / seconds),
        p50_ms=_latency("p50", output),
        p99_ms=_latency("p99", output),
        cpu_us=round(used / requests * 1e6, 2),
        rss_mib=round(resident_bytes(pid) / 2**20, 1),
    )


def _wrk(url: str, load: Load, seconds: int) -> str:
    headers = [part for pair in load.headers.items() for part in ("-H", f"{pair[0]}: {pair[1]}")]
    connections = ["-t", "1", "-c", str(load.connections), "-d", f"{seconds}s"]
    return subprocess.run(
        [program("wrk"), *connections, "--latency", *headers, url],
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
