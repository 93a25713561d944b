"""Start what is measured and what it is measured with, each on its own core."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROXY_CORE: Final = 0
"""Where the proxy under test runs, with nothing beside it."""

LOAD_CORE: Final = 1
"""Where the upstream and the load run."""

PACKAGES: Final = {"nginx": "nginx-light", "wrk": "wrk", "haproxy": "haproxy", "node": "nodejs"}
_BEYOND_PATH: Final = ("/usr/sbin", "/usr/local/sbin")
_SCHEDULED_TIME: Final = 2
"""The clock of a process that counts what its threads ran, ended ones too (`CPUCLOCK_SCHED`)."""
_WORKER: Final = re.compile(r"kworker/\d+:\d+(-|\+|$)")


class MissingProgram(Exception):
    """A program that the benchmark needs is not installed."""


def program(name: str) -> str:
    """Return where a program is; nginx lives beyond most users' PATH."""
    found = which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_BEYOND_PATH)))
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


def cpu_seconds(*pids: int) -> float:
    """Return the processor time that processes, their threads and their children have used.

    By the kernel's clock of each process, which is exact where /proc/<pid>/stat counts ticks. What
    the kernel's own workers did is added, for a sync that a process asks of the kernel is done by
    one of those: only the difference over a run means something, in which nobody else asks.
    """
    own = sum(time.clock_gettime(~one << 3 | _SCHEDULED_TIME) for one in _family(*pids))
    return own + _kernel_workers.seconds()


class _KernelWorkers:
    """The kernel's threads that do deferred work in a process's stead, and what they have used.

    Without those that serve the disk (high priority, or unbound): they do the same for any sync.
    """

    def __init__(self) -> None:
        self._used: Final[dict[str, int]] = {}
        self._total = 0

    def seconds(self) -> float:
        """Return the processor time that all of them used since this was first asked."""
        first = not self._used
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended: its time up to the last look is in the total
                if _WORKER.match((path / "comm").read_text()):
                    used = int((path / "schedstat").read_text().split()[0])
                    self._total += 0 if first else used - self._used.get(path.name, 0)
                    self._used[path.name] = used
        return self._total / 1e9


_kernel_workers: Final = _KernelWorkers()


def resident_bytes(*pids: int) -> int:
    """Return the memory that processes and their children occupy."""
    pages = (int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in _family(*pids))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _family(*pids: int) -> list[int]:
    children = (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in pids)
    return [*pids, *(int(child) for some in children for child in some)]
