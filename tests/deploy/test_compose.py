"""docker-compose.yml and the Dockerfile: confined, apart, and without a secret in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.components.gate import Gate

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def networks(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].partition(":")[0] not in {"", "0", "root"}
    unwanted = {"privileged", "cap_add", "pid", "ipc", "ports", "devices"}
    assert not unwanted & set(service)
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))


def test_the_agent_can_reach_the_broker_and_nothing_else() -> None:
    assert networks(SERVICES["agent"]) == {"agents"}
    beside = {name for name, service in SERVICES.items() if "agents" in networks(service)}
    assert beside == {"agent", "broker"}
    open_networks = {name for name, one in DOCUMENT["networks"].items() if not one.get("internal")}
    users = {name for name, one in SERVICES.items() if open_networks & networks(one)}
    assert users == {"broker"}


def test_the_database_is_openbaos_alone() -> None:
    beside = {name for name, service in SERVICES.items() if "database" in networks(service)}
    assert beside == {"postgres", "openbao", "openbao-dev"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_an_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        secret = re.search("PASSWORD|SECRET|TOKEN|KEY", variable)
        assert not secret or variable.endswith("_FILE"), variable
        assert not secret or str(value).startswith("/files/")


@pytest.mark.parametrize("name", ["broker", "upstream", "postgres", "openbao", "openbao-dev"])
def test_what_stays_up_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("profile", ["dev", "persistent"])
def test_compose_takes_the_file(component: Gate, profile: str) -> None:
    plugin = ("docker", "compose")
    known = shutil.which("docker") and subprocess.run(
        [*plugin, "version"], capture_output=True, check=False
    )
    if known and known.returncode == 0:
        command = [*plugin]
    else:
        command = [component.program("docker-compose", "apt-get install docker-compose")]
    done = subprocess.run(
        [*command, "--file", str(ROOT / "docker-compose.yml"), "--profile", profile, "config"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert {"broker", "agent", "openbao" if profile == "persistent" else "openbao-dev"} <= set(
        found
    )


def test_the_policy_that_is_mounted_is_a_good_one() -> None:
    from broker.policy.loader import Document, load_policy  # noqa: PLC0415 - for this test alone

    text = (ROOT / "deploy" / "compose" / "policies" / "demo.yaml").read_text()
    policy = load_policy(
        [
            Document("demo.yaml", text),
            Document("sources.yaml", "identity_sources: {local: {type: local}}"),
        ]
    )
    assert policy.agents["demo"].scopes == ("orders.read", "orders-db.read")


def test_the_image_runs_as_nobody_in_particular() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert final.startswith("scratch\n")
    assert "\nUSER 65532:65532\n" in final
    assert "\nRUN " not in final


def test_every_package_from_elsewhere_is_checked_against_its_hash() -> None:
    installs = re.findall(r"pip[^&\n]* install [^&\n]*", DOCKERFILE)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
