"""A gateway in a process of its own: `python -m tests.attacks.gateway_process PORT DIRECTORY`.

It stands before an upstream at `PORT`, says on which port it listens and which task token it
takes, and runs until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import uvloop

from tests.fakes.gateway import gateway_bench, socket_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class GatewayProcess:
    """Such a process, seen from outside."""

    port: int
    token: bytes
    pid: int

    def memory(self, which: str = "VmRSS") -> float:
        """MiB of memory: what it has now, or the most that it had (`VmHWM`)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{which}:")[1].split()[0]) / 1024

    def head(self, method: bytes, target: bytes, *lines: bytes) -> bytes:
        first = b"%b %b HTTP/1.1" % (method, target)
        return b"\r\n".join(
            [first, b"Host: g", b"Authorization: Bearer " + self.token, *lines, b"", b""]
        )


@contextmanager
def gateway_process(port: int, directory: Path, fields: str = "") -> Iterator[GatewayProcess]:
    """Run one before an upstream at `port`; `fields` are more of its services'."""
    command = [sys.executable, "-m", "tests.attacks.gateway_process", str(port), str(directory)]
    with Popen([*command, fields], cwd=_ROOT, stdin=PIPE, stdout=PIPE) as process:
        try:
            assert process.stdout is not None
            own, token = process.stdout.readline().split()
            yield GatewayProcess(int(own), token, process.pid)
        finally:
            process.kill()


async def _serve(port: int, directory: Path, fields: str) -> None:
    where = f"base_url: http://127.0.0.1:{port}, insecure_http: true, allow_private: true{fields}"
    async with gateway_bench(directory, text=socket_policy(where)) as bench:
        token = bench.token(lifetime=3600).decode()
        sys.stdout.write(f"{bench.port} {token}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
