"""The broker as a process of its own: the main job, reloads, signals, the end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.broker.app.conftest import KEY, Served, running
from tests.components.process import wait_until

if TYPE_CHECKING:
    from tests.broker.app.conftest import Home

FAILING = """
import asyncio
from broker.cli.main import main
from broker.leases.reaper import Reaper

async def run(self):
    await asyncio.sleep(0.2)
    raise RuntimeError("canary-of-a-text")

Reaper.run = run
main()
"""
"""A broker with a defect: after a moment nobody ends its credentials any more."""


def test_the_main_job(served: Served) -> None:
    options = ("--task", "look", "--reason", "asked to")
    token = served.home.run("token", "--scope", "orders.read", *options).strip()
    answer = served.call("GET", "/orders/v1/orders/ord_1001", token)
    assert (answer.status_code, answer.json()["id"]) == (200, "ord_1001")
    refused = served.call("POST", "/orders/v1/refunds", token)
    assert refused.status_code == 403
    assert refused.headers["Broker-Error"] == "policy_denied"
    assert refused.json()["scopes"] == []
    assert served.call("GET", "/orders/v1/orders", "not.a.token").status_code == 401
    lines = served.home.run("logs")
    assert "GET /v1/orders/ord_1001 | 200" in lines
    assert "POST /v1/refunds | BLOCKED" in lines
    assert "token.exchange orders.read | OK" in lines


def test_an_agent_may_not_have_what_it_was_not_granted(served: Served) -> None:
    answer = served.home.attempt("token", "--scope", "orders.write")
    assert answer.returncode == 1
    assert "orders.read" in answer.stderr
    assert answer.stdout == ""


def test_the_key_is_nowhere_but_in_the_sealed_store(served: Served) -> None:
    served.call("GET", "/orders/v1/orders", served.token())
    served.process.terminate()
    served.process.wait(timeout=20)
    for path in served.home.path.parent.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_bad_policy_is_refused_loudly_and_the_last_good_one_stays(served: Served) -> None:
    token = served.token()
    path = served.home.path / "policies/services/orders.yaml"
    good = path.read_text()
    path.write_text(good.replace("GET /**", "GOT /**"))
    served.wait_for_policy("degraded")
    reason = served.ready()["checks"]["policy"]["reason"]
    assert f"{path}:" in reason
    assert "GET" in reason
    assert served.ready()["status"] == "degraded"
    assert served.call("GET", "/orders/v1/orders", token).status_code == 200
    assert "the new policy is refused" in served.log

    path.write_text(good.replace("HEAD /**", "OPTIONS /**"))
    served.wait_for_policy("ok")
    loads = [r for r in served.home.records() if r["action"] == "policy.load"]
    assert [record["decision"] for record in loads] == ["allow", "deny", "allow"]
    assert "GOT" in loads[1]["detail"]
    assert loads[1]["policy_version"] == loads[0]["policy_version"] != loads[2]["policy_version"]


def test_rights_that_policy_takes_away_are_gone_at_once(served: Served) -> None:
    token = served.token()
    agents = served.home.path / "policies/agents/my-agent.yaml"
    agents.write_text(agents.read_text().replace("orders.read", "orders.write"))
    wait_until(
        lambda: served.call("GET", "/orders/v1/orders", token).status_code != 200,
        "the token to lose its scope",
    )


def test_what_is_added_while_it_runs_can_be_used(served: Served, demo_api: int) -> None:
    served.home.run(
        *("add", "more", "--base-url", f"http://127.0.0.1:{demo_api}"),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin=f"{KEY}\n",
    )
    served.home.run("agents", "enroll", "late", "--scope", "more.read")
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reading policies and secrets again" in served.log, "SIGHUP to be heard")
    wanted = ("token", "--agent", "late", "--scope", "more.read")
    wait_until(lambda: served.home.attempt(*wanted).returncode == 0, "the policy to be in force")
    token = served.token("more.read", "late")
    assert served.call("GET", "/more/v1/orders", token).status_code == 200


def test_metrics_and_metadata(served: Served) -> None:
    served.call("GET", "/orders/v1/orders", served.token())
    metrics = served.http.get(f"{served.home.control_url}/metrics").text
    assert 'broker_gateway_requests_total{decision="allow",service="orders"' in metrics
    metadata = served.http.get(f"{served.home.control_url}/.well-known/oauth-authorization-server")
    assert metadata.json()["issuer"] == served.home.control_url


def test_sigterm_lets_a_request_under_way_end_and_closes_the_trail(home: Home) -> None:
    with running(home) as served:
        served.call("GET", "/orders/v1/orders", served.token())
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=20) == 0
        assert "stopping" in served.log
    report = json.loads(home.run("audit", "verify", "--json"))
    assert report["whole"]
    assert all(writer["closed"] for writer in report["writers"])
    with running(home) as again:
        assert again.call("GET", "/orders/v1/orders", again.token()).status_code == 200
    assert json.loads(home.run("audit", "verify", "--json"))["whole"]


def test_the_broker_itself_is_out_of_reach_of_every_service(served: Served) -> None:
    served.home.run(
        *("add", "self", "--base-url", served.home.control_url),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin="key-of-this-broker\n",
    )
    served.process.send_signal(signal.SIGHUP)
    token = served.token("self.read")
    answer = served.call("GET", "/self/healthz", token)
    assert answer.status_code == 502
    assert answer.headers["Broker-Error"] == "upstream_forbidden"


def test_a_listener_that_is_taken_is_named(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(home.environment["BROKER_GATEWAY_PORT"])))
        other.listen()
        ended = home.attempt("serve")
    assert ended.returncode == 1
    assert "is in use" in ended.stderr
    assert "--gateway-port" in ended.stderr


def test_r6_a_broker_that_loses_a_part_of_itself_ends_and_says_so(home: Home) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, "serve"],
        env=dict(home.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 70
    assert "a part of the broker failed with RuntimeError" in ended.stderr
    assert "the broker ends" in ended.stderr
    assert "canary-of-a-text" not in ended.stderr + ended.stdout
    assert home.attempt("audit", "verify").returncode == 0
