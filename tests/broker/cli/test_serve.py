"""Why `broker serve` may not start; what it does when it has is shown in tests/broker/app."""

from __future__ import annotations

import base64
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.running_broker import COMMAND

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


def serve(broker: Commands, *options: str) -> str:
    """Run `broker serve`, which must end with status 1; return what it said."""
    ended = subprocess.run(
        [COMMAND, "serve", *options],
        env={**os.environ, "BROKER_HOME": str(broker.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


FREE = ("--control-port", "0", "--gateway-port", "0")


def test_without_a_broker(bare: Commands) -> None:
    assert "broker init" in serve(bare, *FREE)


def test_with_the_wrong_master_key(broker: Commands) -> None:
    (broker.home / "keys/master.key").write_bytes(base64.b64encode(bytes(32)))
    assert "wrong master key" in serve(broker, *FREE)


def test_with_a_bad_policy(broker: Commands) -> None:
    path = broker.home / "policies/sources.yaml"
    path.write_text("services:\n  a: {provider: http_apy}\n")
    assert f"{path}:2:" in serve(broker, *FREE)
    assert "policy | policy.load | BLOCKED" in broker.ok("logs").out


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_with_a_key_that_others_can_read(broker: Commands, mode: int) -> None:
    key = broker.home / "keys/signing.sealed"
    key.chmod(mode)
    assert f"chmod 600 {key}" in serve(broker, *FREE)


def test_with_a_bad_setting(broker: Commands) -> None:
    assert "--port is" not in serve(broker, "--control-port", "70000")
    assert "control.port is 70000" in serve(broker, "--control-port", "70000")
