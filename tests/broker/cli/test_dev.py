"""`broker dev` as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from sysconfig import get_path
from typing import TYPE_CHECKING

import pytest

from tests.components.process import wait_until

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = os.path.join(get_path("scripts"), "broker")  # noqa: PTH118 - argv takes text
KEY = re.compile(r"demo_[A-Za-z0-9_-]{20,}")


def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which temporary directories can be counted."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}


def dev(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "dev", *options],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_once_plays_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    played = dev(tmp_path, "--once")
    assert played.returncode == 0, played.stdout + played.stderr
    for part in (
        "HTTP 401",
        '"scope": "orders.read"',
        "HTTP 200",
        "HTTP 403",
        "Broker-Error: policy_denied",
        "orders.refund",
        "| orders | GET /v1/orders/ord_1001 | 200 |",
        "| orders | POST /v1/refunds | BLOCKED |",
        "none changed, moved or missing",
    ):
        assert part in played.stdout
    assert not KEY.search(played.stdout + played.stderr)
    assert "PRIVATE KEY" not in played.stdout
    assert "\x1b" not in played.stdout
    assert played.stderr == ""
    assert not list(tmp_path.iterdir())


def test_programs_get_the_steps_in_json_and_ports_that_are_free(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 8700))
            other.listen()
        except OSError:
            pass  # somebody else has it already, which serves as well
        played = dev(tmp_path, "--once", "--json")
    assert played.returncode == 0, played.stderr
    report = json.loads(played.stdout)
    assert report["passed"]
    assert len(report["steps"]) == 6
    assert ":8700" not in played.stdout


def test_a_home_can_be_chosen_and_is_kept_and_not_used_again(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    ports = ("--control-port", "0", "--gateway-port", "0")
    assert dev(tmp_path, "--once", "--home", str(home), *ports).returncode == 0
    policy = (home / "policies/demo.yaml").read_text()
    assert "insecure_http: true" in policy
    assert not KEY.search(policy)
    again = dev(tmp_path, "--once", "--home", str(home), *ports)
    assert again.returncode == 1
    assert f"broker serve --home {home}" in again.stderr


def test_a_port_that_was_asked_for_and_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ended = dev(tmp_path, "--once", "--control-port", "0", "--gateway-port", port)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port} is in use" in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_and_what_it_prints_works_as_printed(
    tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [COMMAND, "dev", "--control-port", "0", "--gateway-port", "0"],
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(lambda: "Ctrl-C ends it" in log.read_text(), "the play to end")
            if number == signal.SIGINT:
                tried = try_what_is_printed(log.read_text(), environment(tmp_path))
                assert '"id": "ord_1001"' in tried
                assert '"state": "done"' in tried
                assert "denied" in tried
        finally:
            process.send_signal(number)
        assert process.wait(timeout=30) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("early", ["broker-dev-*", "broker-dev-*/broker.toml"])
def test_it_leaves_nothing_however_early_it_is_ended(
    tmp_path: Path, early: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [COMMAND, "dev", "--control-port", "0", "--gateway-port", "0"],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        wait_until(lambda: any(tmp_path.glob(early)), "its state to be there")
        process.send_signal(number)
        told, _ = process.communicate(timeout=30)
    assert b"Traceback" not in told
    assert not list(tmp_path.iterdir())


def try_what_is_printed(text: str, environment: dict[str, str]) -> str:
    """Run the commands that are printed for another terminal, but those that wait for people."""
    commands = re.findall(
        r"^   ((?:export|TOKEN=|curl|broker) ?.*)$", text.partition("stays up")[2], re.MULTILINE
    )
    script = [line for line in commands if line not in {"broker logs -f", "broker add stripe"}]
    assert len(script) >= 6
    ended = subprocess.run(
        ["bash", "-euc", "\n".join(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "error" not in ended.stderr.replace("--show-error", ""), ended.stderr
    return ended.stdout


def test_a_step_that_goes_wrong_ends_it_with_status_1(tmp_path: Path) -> None:
    script = (
        "import broker.cli.play as play, broker.cli.main as main, sys\n"
        "play._OK = 299\n"
        "sys.argv = ['broker', 'dev', '--control-port', '0', '--gateway-port', '0']\n"
        "main.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 1
    assert "That is not what should have happened." in ended.stdout
    assert not list(tmp_path.iterdir())
