"""Several workers as processes: their start, their deaths, signals, the end."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.app.supervisor import _how, _pause
from tests.broker.app.conftest import Home, Served, running
from tests.components.process import alive, children, free_port, no_descriptors, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = {"main", "main.2"}

STUCK = """
import asyncio
from broker.app import server, supervisor
from broker.cli.main import main

async def run(*_, **__):
    await asyncio.sleep(3600)

server.run, supervisor.STARTING = run, 0.3
main()
"""
"""A broker whose workers do nothing."""


@pytest.fixture
def home(home: Home) -> Home:
    """Let two workers serve the home."""
    return Home(home.path, {**home.environment, "BROKER_WORKERS": "2"})


@pytest.fixture
def served(home: Home) -> Iterator[Served]:
    """Give a broker of two workers; every request comes on a connection of its own."""
    with (
        running(home) as alone,
        httpx.Client(
            trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client,
    ):
        broker = replace(alone, http=client)
        wait_for(broker, "ready: ")
        yield broker


def wait_for(served: Served, text: str, times: int = 1) -> None:
    """Wait until the log says something, so many times."""
    wait_until(lambda: served.log.count(text) >= times, f"the log to say {text!r}")


def metric(served: Served, name: str) -> float:
    """Return the value of a metric without labels."""
    text = served.http.get(f"{served.home.control_url}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def writers(served: Served, action: str) -> set[str]:
    """Return who wrote records of an action."""
    return {one["writer"] for one in served.home.records() if one["action"] == action}


def use_both(served: Served, token: str) -> None:
    """Send requests until each worker has served one."""
    wait_until(
        lambda: (
            all(served.call("GET", "/orders/v1/orders", token).status_code == 200 for _ in "1234")
            and writers(served, "proxy.request") == BOTH
        ),
        "both workers to serve",
    )


def test_both_serve_and_all_commands_see_them_as_one_broker(served: Served) -> None:
    assert served.log.count("ready: ") == 1
    assert "2 workers" in served.log
    assert len(children(served.process.pid)) == 2
    supervisor = Path(f"/proc/{served.process.pid}")
    assert len(list((supervisor / "task").iterdir())) == 1, "it may fork at any time: no threads"
    opened = [str(one.readlink()) for one in (supervisor / "fd").iterdir()]
    assert not [one for one in opened if one.startswith(str(served.home.path))]
    token = served.token()
    use_both(served, token)
    requests = [one for one in served.home.records() if one["action"] == "proxy.request"]
    sent = len({one["operation"] for one in requests})
    wait_until(
        lambda: json.loads(served.home.run("sessions", "--json"))[0]["requests"] == sent,
        "the use of the grant to be noted by both",
    )

    def counted() -> float:
        text = served.http.get(f"{served.home.control_url}/metrics").text
        lines = text.splitlines()
        counts = [line for line in lines if line.startswith("broker_gateway_requests_tot")]
        return sum(float(line.split()[-1]) for line in counts)

    wait_until(lambda: counted() == sent, "both to be counted")
    wait_until(lambda: metric(served, "broker_workers") == 2, "both to be counted")
    heads = {line.partition(":")[0] for line in served.home.run("audit", "head").splitlines()}
    assert heads >= BOTH
    assert "GET /v1/orders | 200" in served.home.run("logs")
    assert "is running, and well" in served.home.run("doctor")
    assert served.ready()["checks"]["workers"] == {"state": "ok"}


def test_no_secret_is_handed_from_process_to_process(home: Home) -> None:
    (home.path / "broker.toml").write_text('master_key_source = "environment"\n')
    key = (home.path / "keys/master.key").read_text().strip()
    home = Home(home.path, {**home.environment, "BROKER_MASTER_KEY": key})
    with running(home) as served:
        wait_for(served, "ready: ")
        assert served.call("GET", "/orders/v1/orders", served.token()).status_code == 200
        workers = children(served.process.pid)
        assert len(workers) == 2
        for pid in (*workers, served.process.pid):
            for place in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{place}").read_bytes()
                assert b"BROKER_HOME" in text or place == "cmdline"
                assert key.encode() not in text
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
        os.kill(workers[1], signal.SIGKILL)
        wait_for(served, "worker 2 is ready")


def test_a_worker_that_is_killed_is_replaced_and_its_chain_goes_on(served: Served) -> None:
    token = served.token()
    use_both(served, token)
    first, second = children(served.process.pid)
    os.kill(second, signal.SIGKILL)
    wait_for(served, "worker 2 is ready")
    assert f"worker 2 (process {second}) was ended by SIGKILL; another is started at once" in (
        served.log
    )
    assert first in children(served.process.pid)
    assert metric(served, "broker_worker_restarts_total") == 1
    wait_until(lambda: metric(served, "broker_workers") == 2, "both to be counted")
    before = len([one for one in served.home.records() if one["writer"] == "main.2"])
    wait_until(
        lambda: (
            served.call("GET", "/orders/v1/orders", token).status_code == 200
            and len([r for r in served.home.records() if r["writer"] == "main.2"]) > before
        ),
        "the new worker to serve",
    )
    report = json.loads(served.home.run("audit", "verify", "--json"))
    assert report["whole"]


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 5, "signal 39")]
)
def test_each_signal_that_ends_one_has_a_name(number: int, name: str) -> None:
    """Python names the first and the last real-time signal, and none between them."""
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(number)
    assert _how(process.returncode) == f"was ended by {name}"


def test_one_that_dies_again_and_again_is_started_less_and_less_often(served: Served) -> None:
    second = children(served.process.pid)[1]
    os.kill(second, signal.SIGTERM)  # it lets its requests end, and has a successor all the same
    wait_for(served, f"(process {second}) ended with status 0; another is started at once")
    for number, when in enumerate(("in 0.5 s", "in 1.0 s"), start=1):
        wait_for(served, "worker 2 is ready", number)
        os.kill(children(served.process.pid)[-1], signal.SIGKILL)
        wait_for(served, f"was ended by SIGKILL; another is started {when}")
    wait_for(served, "worker 2 is ready", 3)
    assert json.loads(served.home.run("audit", "verify", "--json"))["whole"]
    assert [_pause(deaths) for deaths in (0, 1, 2, 3, 7, 8, 1000)] == [0, 0.5, 1, 2, 30, 30, 30]


def test_a_supervisor_that_cannot_fork_tries_again(served: Served) -> None:
    with no_descriptors(served.process.pid):
        os.kill(children(served.process.pid)[1], signal.SIGKILL)
        wait_for(served, "worker 2 cannot be started: Too many open files; another is started in")
    wait_for(served, "worker 2 is ready")
    assert served.process.poll() is None


def test_one_that_hangs_is_reported_by_the_other(served: Served) -> None:
    second = children(served.process.pid)[1]
    quick = httpx.Client(trust_env=False, timeout=0.5)
    os.kill(second, signal.SIGSTOP)

    def told() -> bool:
        try:
            checks = quick.get(f"{served.home.control_url}/readyz").json()["checks"]
        except httpx.TransportError:
            return False  # it was the one that hangs
        return "worker 2: has not been heard of" in checks["workers"].get("reason", "")

    try:
        wait_until(told, "the first to miss the second")
    finally:
        os.kill(second, signal.SIGCONT)
        quick.close()
    wait_until(lambda: served.ready()["checks"]["workers"]["state"] == "ok", "both to be well")


def test_policies_are_read_again_by_each(served: Served) -> None:
    served.process.send_signal(signal.SIGHUP)
    for number in (1, 2):
        wait_for(served, f"[worker {number}]: reading policies and secrets again")
    path = served.home.path / "policies/services/orders.yaml"
    good = path.read_text()
    path.write_text(good.replace("GET /**", "GOT /**"))
    for number in (1, 2):
        wait_for(served, f"[worker {number}]: the new policy is refused")
    reasons = served.ready()["checks"]
    wait_until(lambda: "GET" in served.ready()["checks"]["workers"].get("reason", ""), "the word")
    assert "GET" in reasons["policy"]["reason"]
    path.write_text(good.replace("HEAD /**", "OPTIONS /**"))
    wait_for(served, "is in force now", 2)
    loads = [one for one in served.home.records() if one["action"] == "policy.load"]
    versions = {(one["writer"], one["policy_version"]) for one in loads}
    assert len(versions) == 4, "each has the old one and the new one"


def test_a_successor_that_cannot_start_is_tried_again_while_the_other_serves(
    served: Served,
) -> None:
    token, path = served.token(), served.home.path / "policies/services/orders.yaml"
    good = path.read_text()
    path.write_text(good.replace("GET /**", "GOT /**"))
    for number in (1, 2):
        wait_for(served, f"[worker {number}]: the new policy is refused")
    os.kill(children(served.process.pid)[1], signal.SIGKILL)
    wait_for(served, "ended with status 1; another is started in")
    assert f"error: {path}:" in served.log
    assert served.call("GET", "/orders/v1/orders", token).status_code == 200
    assert metric(served, "broker_workers") == 1
    path.write_text(good)
    wait_for(served, "worker 2 is ready")
    wait_until(lambda: metric(served, "broker_workers") == 2, "both to be counted")
    wait_until(lambda: served.ready()["status"] == "ok", "all to be well")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_end_in_good_order_when_told_to(home: Home, number: signal.Signals) -> None:
    with running(home) as served:
        wait_for(served, "ready: ")
        token = served.token()
        served.call("GET", "/orders/v1/orders", token)
        workers = children(served.process.pid)
        # As systemd and a terminal do: the signal goes to each of them.
        for pid in (*workers, served.process.pid):
            os.kill(pid, number)
        assert served.process.wait(timeout=30) == 0
        assert "all workers have ended" in served.log
        assert not any(map(alive, workers))
    report = json.loads(home.run("audit", "verify", "--json"))
    assert report["whole"]
    assert {one["writer"] for one in report["writers"] if one["closed"]} >= BOTH


def test_a_second_word_is_not_waited_for(served: Served) -> None:
    workers = children(served.process.pid)
    os.kill(workers[1], signal.SIGSTOP)
    served.process.terminate()
    wait_for(served, "stopping")
    served.process.terminate()
    assert served.process.wait(timeout=30) == 0
    assert "worker 2 is ended by force" in served.log
    assert not any(map(alive, workers))


def test_no_worker_outlives_its_supervisor(home: Home) -> None:
    with running(home) as served:
        wait_for(served, "ready: ")
        workers = children(served.process.pid)
        assert len(workers) == 2
        served.process.kill()
        served.process.wait(timeout=30)
        wait_until(lambda: not any(map(alive, workers)), "the workers to end")
    assert json.loads(home.run("audit", "verify", "--json"))["whole"]
    with running(home) as again:
        assert again.call("GET", "/orders/v1/orders", again.token()).status_code == 200


def test_what_keeps_it_from_starting_is_said_once(home: Home) -> None:
    path = home.path / "policies/services/orders.yaml"
    path.write_text("services: {a: {provider: http_apy}}\n")
    ended = home.attempt("serve")
    assert ended.returncode == 1
    assert ended.stderr.count("http_apy") == 1
    assert "worker 1 (process" in ended.stderr
    assert "before it was ready" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_key_keeps_it_from_starting(home: Home) -> None:
    (home.path / "keys/master.key").write_bytes(base64.b64encode(bytes(32)))
    ended = home.attempt("serve")
    assert ended.returncode == 1
    assert ended.stderr.count("wrong master key") == 1


def test_a_port_that_is_taken_is_named_before_anything_starts(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(home.environment["BROKER_GATEWAY_PORT"])))
        other.listen()
        ended = home.attempt("serve")
    assert ended.returncode == 1
    assert "--gateway-port" in ended.stderr
    assert "worker" not in ended.stderr


def test_another_broker_joins_neither_its_ports_nor_its_home(
    served: Served, tmp_path: Path
) -> None:
    environment = served.home.environment
    other = Home(tmp_path / "o", {**environment, "BROKER_HOME": str(tmp_path / "o")})
    other.run("init", "--yes")
    ended = other.attempt("serve")
    assert ended.returncode == 1
    assert "is in use" in ended.stderr
    ports = {f"BROKER_{name}_PORT": str(free_port()) for name in ("CONTROL", "GATEWAY")}
    ended = Home(served.home.path, {**environment, **ports}).attempt("serve")
    assert ended.returncode == 1
    assert "another process writes the audit trail of writer main" in ended.stderr


def test_one_that_never_gets_ready_is_given_up(home: Home) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, "serve"],
        env=dict(home.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "worker 1 was not ready within 0 s" in ended.stderr
    assert "was ended by SIGKILL before it was ready" in ended.stderr


def test_fewer_workers_later_leave_no_chain_open(home: Home) -> None:
    with running(home) as served:
        wait_for(served, "ready: ")
        for pid in (*children(served.process.pid), served.process.pid):
            os.kill(pid, signal.SIGKILL)
    alone = Home(home.path, {**home.environment, "BROKER_WORKERS": "1"})
    with running(alone):
        report = json.loads(home.run("audit", "verify", "--json"))
        assert report["whole"]
        assert {one["writer"]: one["closed"] for one in report["writers"]}["main.2"]
