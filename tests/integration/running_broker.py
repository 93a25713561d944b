"""A broker as people run it: a home made by `broker init`, a process started by `broker serve`."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from sysconfig import get_path
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.components.process import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

COMMAND: Final = os.path.join(get_path("scripts"), "broker")  # noqa: PTH118 - argv takes text
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True)
class BrokerHome:
    """A broker's home directory, and the environment that its commands run in."""

    path: Path
    environment: Mapping[str, str]

    @classmethod
    def create(cls, path: Path, **settings: str) -> BrokerHome:
        """Make a home with free ports; `settings` become `BROKER_<NAME>`."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(path.parent),
            "BROKER_HOME": str(path),
            "BROKER_CONTROL_PORT": str(free_port()),
            "BROKER_GATEWAY_PORT": str(free_port()),
            **{f"BROKER_{name.upper()}": value for name, value in settings.items()},
        }
        path.parent.mkdir(exist_ok=True)
        home = cls(path, environment)
        home.run("init", "--yes")
        return home

    @property
    def control_url(self) -> str:
        """Where the control plane listens; also the broker's issuer."""
        return f"http://127.0.0.1:{self.environment['BROKER_CONTROL_PORT']}"

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.environment['BROKER_GATEWAY_PORT']}"

    def policy(self, text: str) -> None:
        """Add a policy document beside those of `broker init`."""
        (self.path / "policies" / "integration.yaml").write_text(text)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a `broker` command and return what it printed; raise if it fails."""
        done = subprocess.run(
            [COMMAND, *arguments],
            input=stdin,
            env=dict(self.environment),
            cwd=self.path.parent,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"broker {arguments[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def records(self) -> list[dict[str, Any]]:
        """Return the audit records, oldest first."""
        return [json.loads(line) for line in self.run("logs", "--json").splitlines()]


@dataclass(frozen=True)
class RunningBroker:
    """A running broker; `http` is a client for both its listeners, `process` its process id."""

    home: BrokerHome
    http: httpx.Client
    process: int

    def exchange(self, proof: str, scope: str, **parameters: str) -> httpx.Response:
        """Ask for a task token by RFC 8693."""
        return self.http.post(
            f"{self.home.control_url}/token",
            data={
                "grant_type": EXCHANGE,
                "subject_token": proof,
                "subject_token_type": JWT,
                "scope": scope,
                **parameters,
            },
        )

    def task_token(self, proof: str, scope: str, **parameters: str) -> str:
        """Return a task token for `scope`."""
        answer = self.exchange(proof, scope, **parameters)
        assert answer.status_code == httpx.codes.OK, answer.text
        token: str = answer.json()["access_token"]
        return token

    def call(self, token: str, method: str, path: str, **parameters: Any) -> httpx.Response:
        """Send a request through the gateway; `path` begins with the service's name."""
        return self.http.request(
            method,
            f"{self.home.gateway_url}{path}",
            headers={"Authorization": f"Bearer {token}"},
            **parameters,
        )


@contextmanager
def running_broker(home: BrokerHome, *options: str) -> Iterator[RunningBroker]:
    """Run `broker serve` until the block ends."""
    with httpx.Client(trust_env=False, timeout=30) as client:

        def ready() -> bool:
            try:
                return client.get(f"{home.control_url}/readyz").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        with serving(
            [COMMAND, "serve", *options],
            ready,
            directory=home.path.parent,
            environment=home.environment,
        ) as process:
            yield RunningBroker(home, client, process.pid)
