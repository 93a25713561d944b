"""docker-compose.yml brought up by podman: the agent does its task, and reaches nothing else.

It takes images that no test can pull, so it runs where COMPOSE_UP=1 says that they are there:
`agent-token-broker`, built from the Dockerfile, and those that OPENBAO_IMAGE and POSTGRES_IMAGE
name.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.components.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 200_000_000


class Project:
    """The containers of one profile."""

    def __init__(self, compose: str, podman: str, profile: str) -> None:
        self._compose = [compose, "--project-name", f"test-{profile}", "--profile", profile]
        self._podman = podman
        self._profile = profile

    def compose(self, *words: str) -> None:
        subprocess.run(
            [*self._compose, *words], cwd=ROOT, capture_output=True, check=False, timeout=300
        )

    def podman(self, *words: str) -> str:
        done = subprocess.run(
            [self._podman, *words], capture_output=True, check=False, text=True, timeout=60
        )
        return done.stdout

    def name(self, service: str) -> str:
        return f"test-{self._profile}_{service}_1"


@pytest.fixture(params=["dev", "persistent"])
def project(component: Gate, request: pytest.FixtureRequest) -> Iterator[Project]:
    if os.environ.get("COMPOSE_UP") != "1":
        pytest.skip("component missing: container images (build or pull them, set COMPOSE_UP=1)")
    compose = component.program("podman-compose", "pip install podman-compose")
    podman = component.program("podman", "apt-get install podman")
    one = Project(compose, podman, request.param)
    one.compose("up", "--detach", "--no-build")
    yield one
    one.compose("down", "--volumes")


@pytest.mark.timeout(400)
def test_the_agent_does_its_task_and_reaches_the_broker_alone(project: Project) -> None:
    agent, broker = project.name("agent"), project.name("broker")
    wait_until(lambda: "192.0.2.1:443" in project.podman("logs", agent), "the agent's task", 120)
    told = project.podman("logs", agent).splitlines()
    assert len(told) == 7
    assert all(line.startswith("ok ") for line in told), told
    assert project.podman("wait", agent).strip() == "0"

    def well() -> bool:
        found = json.loads(project.podman("exec", broker, "broker", "doctor", "--json") or "{}")
        return found.get("problems") == 0 and len(found["findings"]) > 5

    wait_until(well, "the doctor to find all well", 60)
    (lease,) = json.loads(project.podman("exec", broker, "broker", "leases", "--json"))
    assert (lease["state"], lease["scope"]) == ("delivered", "orders-db.read")
    size = project.podman("image", "inspect", "agent-token-broker", "--format", "{{.Size}}")
    assert int(size) < LARGEST
