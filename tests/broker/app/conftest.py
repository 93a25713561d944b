"""A broker with one service, run as people run it: `broker init`, `add` and `serve`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from broker.cli.token import request_token
from broker.settings import load_settings
from tests.components.process import free_port, serving, wait_until
from tests.integration.running_broker import COMMAND, BrokerHome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.settings import Settings

KEY = "demo_key_that_no_agent_may_see"


class Home(BrokerHome):
    """A home whose commands may fail."""

    def attempt(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes of it."""
        return subprocess.run(
            [COMMAND, *arguments],
            input=stdin,
            env=dict(self.environment),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )


@dataclass(frozen=True)
class Served:
    """A broker that runs; its one agent may read the service `orders`."""

    home: Home
    process: subprocess.Popen[bytes]
    http: httpx.Client

    @property
    def log(self) -> str:
        """What it has printed."""
        return (self.home.path.parent / "output.log").read_text()

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return load_settings(self.home.path, self.home.environment)

    def token(self, scope: str = "orders.read", agent: str = "my-agent") -> str:
        """Return a task token."""
        answer = asyncio.run(request_token(self.settings, agent, {"scope": scope}))
        return str(answer["access_token"])

    def call(self, method: str, path: str, token: str) -> httpx.Response:
        """Send a request through the gateway."""
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.request(method, f"{self.home.gateway_url}{path}", headers=headers)

    def ready(self) -> dict[str, Any]:
        """Return what /readyz says."""
        return dict(self.http.get(f"{self.home.control_url}/readyz").json())

    def wait_for_policy(self, state: str) -> None:
        """Wait until the policy's health is `state`."""
        wait_until(
            lambda: self.ready()["checks"]["policy"]["state"] == state, f"policy to be {state}"
        )


@pytest.fixture(scope="session")
def demo_api() -> Iterator[int]:
    """Run the demo API with `KEY`; give its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.cli.demo_api"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{KEY}\n")
        process.stdin.flush()
        yield int(process.stdout.readline())
        process.stdin.close()


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, demo_api: int) -> Path:
    """Make a home with the demo API as `orders`, which `my-agent` may read."""
    home = BrokerHome.create(tmp_path_factory.mktemp("furnished") / "home")
    home.run(
        *("add", "orders", "--base-url", f"http://127.0.0.1:{demo_api}"),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin=f"{KEY}\n",
    )
    return home.path


@pytest.fixture
def home(tmp_path: Path, furnished: Path) -> Home:
    """Give a copy of the furnished home, on ports of its own."""
    path = tmp_path / "broker" / "home"
    shutil.copytree(furnished, path)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(path.parent),
        "BROKER_HOME": str(path),
        "BROKER_CONTROL_PORT": str(free_port()),
        "BROKER_GATEWAY_PORT": str(free_port()),
    }
    return Home(path, environment)


@contextmanager
def running(home: Home) -> Iterator[Served]:
    """Run `broker serve` until the block ends."""
    with httpx.Client(trust_env=False, timeout=30) as client:

        def ready() -> bool:
            try:
                return "checks" in client.get(f"{home.control_url}/readyz").json()
            except (httpx.TransportError, ValueError):
                return False

        with serving(
            [COMMAND, "serve"], ready, directory=home.path.parent, environment=home.environment
        ) as process:
            yield Served(home, process, client)


@pytest.fixture
def served(home: Home) -> Iterator[Served]:
    """Give a broker that runs."""
    with running(home) as broker:
        yield broker
