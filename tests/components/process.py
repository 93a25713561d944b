"""Start a real server for the tests, wait until it serves, and stop it again."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_POLL: Final = 0.02
_PORTS: Final = range(20_000, 32_000)


def _candidates() -> Iterator[int]:
    """Yield the ports of this test process, again and again, beginning somewhere."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = _PORTS[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    first = random.randrange(len(mine))  # noqa: S311 - only to avoid other test runs
    return itertools.cycle([*mine[first:], *mine[:first]])


_candidate: Final = _candidates()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on.

    It is below the range from which systems take ports by themselves, so that no connection
    and no other server gets it before whoever asked for it has bound it. No other test process
    is given it: two brokers with several workers could both bind it, and share what comes.
    """
    for port in _candidate:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("there is no port left")


def listening(port: int) -> bool:
    """Say whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    """Poll until `ready()`; raise `TimeoutError` naming `what` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {patience:.0f} s")
        time.sleep(_POLL)


@contextlib.contextmanager
def serving(  # noqa: PLR0913 - each may differ from server to server
    command: Sequence[str],
    ready: Callable[[], bool],
    *,
    directory: Path,
    environment: Mapping[str, str],
    user: str | None = None,
    patience: float = 30.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in `directory` until the block ends; its output goes to `output.log` there.

    The child sees `environment` and nothing else, and is `user`'s if that is given. A server
    that ends before it is ready raises `RuntimeError` with the end of its output; one that is not
    after `patience` seconds, `TimeoutError`.
    """
    log = directory / "output.log"

    def started() -> bool:
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{tail}")
        return ready()

    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(started, f"{command[0]} to be ready", patience)
            yield process
        finally:
            stop(process)


def children(process: int) -> list[int]:
    """Return the ids of a process's children that have not been waited for, the oldest first."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def alive(process: int) -> bool:
    """Say whether a process, which need not be ours, still runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


@contextlib.contextmanager
def no_descriptors(process: int) -> Iterator[None]:
    """Let a process open nothing more; it keeps what it has."""
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    used = {int(one.name) for one in Path(f"/proc/{process}/fd").iterdir()}
    lowest_free = next(number for number in itertools.count() if number not in used)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)


def stop(process: subprocess.Popen[bytes], patience: float = 15.0) -> int:
    """End a process politely, then not; return its exit status."""
    process.terminate()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
