"""An admin API on a port, for a client that runs no event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.control import ControlServer
from broker.terraform.client import AdminClient, Target
from broker.terraform.planned import Planned
from tests.fakes.admin_bench import ALL, open_admin

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from tests.fakes.admin_bench import AdminBench


@dataclass
class Site:
    """A served admin API; what a provider gives its resources."""

    bench: AdminBench
    loop: asyncio.AbstractEventLoop
    url: str
    client: AdminClient | None
    planned: Planned

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the loop of the API."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def fill(self) -> None:
        """Have the API keep a service, a scope and an agent."""
        self.do(self.bench.fill())

    @property
    def api(self) -> AdminClient:
        """The client."""
        assert self.client is not None
        return self.client

    def names(self, section: str) -> list[str]:
        """What the API keeps of a section."""
        kept = self.do(self.bench.storage.policies.kept())
        return [entry.name for entry in kept.entries if entry.section == section]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Serve an admin API on a free port, in a thread of its own."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    ready: list[Site] = []
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with open_admin(tmp_path / "home", port=port) as bench:
            server = ControlServer(bench.app, 5)
            await server.start(listener)
            url = f"http://127.0.0.1:{port}"
            client = AdminClient(Target(url, bench.token), "a test's")
            ready.append(Site(bench, asyncio.get_running_loop(), url, client, Planned()))
            started.set()
            await stop.wait()
            await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30)
    yield ready[0]
    ready[0].loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    listener.close()


STRIPE, READ, BOT = (body for _, _, body in ALL)
