"""Redis, a real server, in which brokers count together."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.components.gate import Gate

_REMEDY: Final = "apt-get install redis-server"


@dataclass(frozen=True)
class Redis:
    """A running server; `socket` is its Unix socket."""

    process: subprocess.Popen[bytes]
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """Where it is, as `limits.url` has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def tell(self, *words: str) -> str:
        """Return what the server answers to a command."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def forget(self) -> None:
        """Drop all that it holds."""
        self.tell("FLUSHALL")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_redis(component: Gate, *options: str, port: int | None = None) -> Iterator[Redis]:
    """Run a server that keeps nothing on disk until the block ends."""
    program = component.program("redis-server", _REMEDY)
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="redis-") as place:
        socket = Path(place) / "redis.sock"
        settings: Sequence[str] = (
            *("--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(socket)),
            *("--save", "", "--appendonly", "no", "--dir", place),
        )
        with serving(
            [program, *settings, *options],
            lambda: socket.exists() if "--tls-port" in options else listening(port),
            directory=Path(place),
            environment={"PATH": os.environ["PATH"]},
        ) as process:
            yield Redis(process, port, socket)


@pytest.fixture(scope="session")
def redis(component: Gate) -> Iterator[Redis]:
    """One server for the whole run; tests that share it use keys of their own."""
    with running_redis(component) as server:
        yield server
