"""Start what is measured and what it is measured with, each on its own core."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PACKAGES: Final = {"nginx": "nginx-light", "wrk": "wrk"}
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class MissingProgram(Exception):
    """A program that the benchmark needs is not installed."""


def program(name: str) -> str:
    """Return where a program is; nginx lives beyond most users' PATH."""
    found = which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingProgram(
            f"{name} was not found. On Debian or Ubuntu: apt-get install {PACKAGES[name]}"
        )
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], port: int, core: int, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server on one core until the block ends; yield its process id once it listens."""
    with subprocess.Popen(
        command,
        env=dict(environment) if environment else None,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no threads here
    ) as process:
        try:
            _await_port(port, process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process, its threads and its children have used."""
    total = 0.0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def resident_bytes(pid: int) -> int:
    """Return the memory that a process and its children occupy."""
    pages = (int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in _family(pid))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
