"""C2: no secret in argv, the environment of children, core files, logs."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.components.process import serving
from tests.fakes.vendor_api import VendorApi, vendor_api
from tests.integration.running_broker import COMMAND, BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.tls import TestAuthority

CANARIES = {
    "embedded": "canary-embedded-8be2b0b5c1f4",
    "env": "canary-env-1d6f30c9ae72",
    "file": "canary-file-5570bd13e9c8",
}
MASTER = base64.b64encode(b"canary-master-key-of-32-bytes-ab").decode()


def policy(url: str, ca_file: Path, references: dict[str, str]) -> str:
    """Return a policy of one service for each reference, in JSON, which YAML is a kind of."""
    return json.dumps(
        {
            "services": {
                name: {
                    "provider": "http_api",
                    "base_url": url,
                    "ca_file": str(ca_file),
                    "allow_private": True,
                    "credential": {"type": "bearer", "secret": reference},
                }
                for name, reference in references.items()
            },
            "scopes": {
                f"{name}.read": {"service": name, "allow": ["GET /v1/**"]} for name in references
            },
            "agents": {
                "my-agent": {
                    "trust": [{"source": "local", "claims": {"sub": "my-agent"}}],
                    "scopes": [f"{name}.read" for name in references],
                }
            },
        }
    )


@pytest.fixture(scope="module")
def vendor(tls_authority: TestAuthority) -> Iterator[VendorApi]:
    with vendor_api(CANARIES["embedded"], tls_authority.certificate("127.0.0.1")) as api:
        yield api


@pytest.fixture(scope="module")
def home(
    vendor: VendorApi, tls_authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerHome]:
    """A home that was made, and is used, with a umask that takes nothing away."""
    directory = tmp_path_factory.mktemp("c2")
    file = directory / "vendor-key"
    file.touch(mode=0o600)
    file.write_text(CANARIES["file"])
    (directory / "broker").mkdir(mode=0o700)
    before = os.umask(0)
    try:
        home = BrokerHome.create(
            directory / "broker" / "home",
            log_level="debug",
            master_key_source="environment",
            master_key=MASTER,
        )
        home = replace(home, environment={**home.environment, "VENDOR_KEY": CANARIES["env"]})
        home.run("secret", "put", "vendor", stdin=CANARIES["embedded"])
        references = {
            "embedded": "embedded:vendor",
            "env": "env:VENDOR_KEY",
            "file": f"file:{file}",
            "absent": "embedded:absent",
        }
        home.policy(policy(vendor.url, tls_authority.ca_file, references))
        (home.path / "policies" / "integration.yaml").chmod(0o600)  # the test wrote it
        yield home
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def broker(home: BrokerHome) -> Iterator[RunningBroker]:
    """A broker that has put each secret into a request, and met what makes it complain."""
    with running_broker(home) as running:
        for service, status in {"embedded": 200, "env": 401, "file": 401, "absent": 502}.items():
            token = home.run("token", "--scope", f"{service}.read").strip()
            answer = running.call(token, "GET", f"/{service}/v1/charges")
            assert answer.status_code == status, answer.text
            assert running.call(token, "POST", f"/{service}/v1/charges").status_code == 403
            assert running.call(token, "GET", f"/{service}/v1/%2e%2e").status_code == 400
        yield running


def spellings(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [raw, base64.b64encode(raw)[:-4], raw.hex().encode()]


def assert_no_canary(text: bytes, place: object) -> None:
    for name, secret in (*CANARIES.items(), ("master", MASTER)):
        assert not any(spelling in text for spelling in spellings(secret)), f"{name} in {place}"


def test_c2_each_secret_reached_the_vendor(broker: RunningBroker, vendor: VendorApi) -> None:
    sent = {request.headers.get("authorization") for request in vendor.requests}
    assert {f"Bearer {secret}" for secret in CANARIES.values()} <= sent
    assert broker.home.path.is_dir()


def test_c2_no_secret_is_in_logs_or_files(broker: RunningBroker) -> None:
    output = broker.home.path.parent / "output.log"
    assert b"INFO" in output.read_bytes()
    seen = 0
    for path in broker.home.path.parent.rglob("*"):
        if path.is_file():
            assert_no_canary(path.read_bytes(), path)
            seen += 1
    assert seen > 5
    assert_no_canary(broker.home.run("logs", "--json").encode(), "logs")
    assert_no_canary(broker.http.get(f"{broker.home.control_url}/metrics").content, "metrics")
    assert_no_canary(broker.http.get(f"{broker.home.control_url}/readyz").content, "readyz")


def descendants() -> list[Path]:
    """Return the processes that this one started, and those that they started."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The name may hold spaces and brackets; the parent is the second field after it.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(process.name)] = int(fields[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return [Path("/proc", str(pid)) for pid in found[1:]]


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # it has ended


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.usefixtures("broker")
def test_c2_no_secret_is_in_a_command_line() -> None:
    command_lines = [command_line(process) for process in descendants()]
    assert any(b"\0serve\0" in line for line in command_lines)
    for line in command_lines:
        assert_no_canary(line, line)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_c2_the_brokers_memory_and_environment_belong_to_root(broker: RunningBroker) -> None:
    assert broker.home.path.is_dir()
    (process,) = [p for p in descendants() if b"\0serve\0" in command_line(p)]
    limits = (process / "limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    for name in ("environ", "mem", "maps"):
        assert (process / name).stat().st_uid == 0


@pytest.mark.usefixtures("broker")
def test_c1_all_is_owner_only_under_umask_000(home: BrokerHome) -> None:
    found = {path: path.lstat().st_mode for path in (home.path, *home.path.rglob("*"))}
    assert any(stat.S_ISREG(mode) for mode in found.values())
    assert [path for path, mode in found.items() if mode & 0o077] == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_c2_the_demo_api_is_told_its_key_where_nobody_else_can_read_it(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "VENDOR_KEY": CANARIES["env"]}
    environment["TMPDIR"] = str(tmp_path)

    def demo_apis() -> list[Path]:
        return [p for p in descendants() if b"broker.cli.demo_api" in command_line(p)]

    command = [COMMAND, "dev", "--control-port", "0", "--gateway-port", "0"]
    with serving(command, lambda: bool(demo_apis()), directory=tmp_path, environment=environment):
        (process,) = demo_apis()
        told = command_line(process) + (process / "environ").read_bytes()
    assert b"PATH=" in told
    assert not re.search(rb"demo_[\w-]{20}", told)
    assert_no_canary(told, "the demo API's environment")
