"""Grants ended while a broker runs: from the command line, by their holder, in mid-stream."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.components.process import wait_until
from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENT = b"data: tick\n\n"


class _Events(http.server.BaseHTTPRequestHandler):
    """Answer with events for ever, or with one line."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        with suppress(OSError):
            while self.path.endswith("/stream"):
                self.wfile.write(EVENT)
                self.server.waiting.wait(0.02)  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Events)
    server.daemon_threads = True
    server.waiting = threading.Event()  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def broker(upstream: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    home = BrokerHome.create(tmp_path_factory.mktemp("revocation") / "home")
    home.run(
        *("add", "events", "--base-url", f"http://127.0.0.1:{upstream}"),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin="a_key_that_no_agent_may_see\n",
    )
    with running_broker(home) as running:
        yield running


def _token(broker: RunningBroker) -> str:
    return broker.home.run("token", "--scope", "events.read").strip()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _jti(broker: RunningBroker, token: str) -> str:
    answer = broker.http.post(
        f"{broker.home.control_url}/introspect", data={"token": token}, headers=_bearer(token)
    )
    return str(answer.json()["jti"])


def _outcome(broker: RunningBroker, jti: str) -> dict[str, Any]:
    """Return the record of how the grant's last request ended, once there is one."""

    def ends() -> list[dict[str, Any]]:
        records = broker.home.records()
        mine = [one for one in records if one.get("grant") == jti]
        return [
            one for one in mine if (one["action"], one["phase"]) == ("proxy.request", "outcome")
        ]

    wait_until(lambda: bool(ends()), "the outcome to be on record")
    return ends()[-1]


def test_u15_a_revocation_from_the_command_line_cuts_a_running_stream(
    broker: RunningBroker,
) -> None:
    token = _token(broker)
    jti = _jti(broker, token)
    url = f"{broker.home.gateway_url}/events/v1/stream"
    with broker.http.stream("GET", url, headers=_bearer(token)) as stream:
        pieces = stream.iter_raw()
        assert EVENT in next(pieces)
        told = json.loads(broker.home.run("revoke", jti, "--reason", "a test", "--json"))
        assert [one["grant"] for one in told["grants"]] == [jti]
        with pytest.raises(httpx.TransportError):
            for _ in pieces:
                pass
    refused = broker.call(token, "GET", "/events/v1/x")
    assert (refused.status_code, refused.headers["broker-error"]) == (401, "token_invalid")
    assert "revoked" in refused.json()["detail"]
    assert "revoked" in _outcome(broker, jti)["detail"]


def test_r_a_broker_that_is_down_when_it_is_revoked_knows_when_it_starts(
    upstream: int, tmp_path: Path
) -> None:
    home = BrokerHome.create(tmp_path / "home")
    home.run(
        *("add", "events", "--base-url", f"http://127.0.0.1:{upstream}"),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin="a_key_that_no_agent_may_see\n",
    )
    with running_broker(home) as first:
        token = _token(first)
        assert first.call(token, "GET", "/events/v1/x").status_code == httpx.codes.OK
    home.run("revoke", "--all", "--yes")
    with running_broker(home) as second:
        assert second.call(token, "GET", "/events/v1/x").status_code == httpx.codes.UNAUTHORIZED
        assert second.call(_token(second), "GET", "/events/v1/x").status_code == httpx.codes.OK


def test_sessions_tell_what_runs_and_revoking_the_agent_ends_it(broker: RunningBroker) -> None:
    token = _token(broker)
    jti = _jti(broker, token)
    for _ in range(3):
        assert broker.call(token, "GET", "/events/v1/x").status_code == httpx.codes.OK

    def session() -> dict[str, Any]:
        live = json.loads(broker.home.run("sessions", "--agent", "my-agent", "--json"))
        return dict(next(one for one in live if one["grant"] == jti))

    wait_until(lambda: session()["requests"] >= 3, "the use to be written down")
    assert session()["used_at"] is not None
    broker.home.run("revoke", "--agent", "my-agent")
    wait_until(
        lambda: broker.call(token, "GET", "/events/v1/x").status_code == httpx.codes.UNAUTHORIZED,
        "the token to be refused",
    )
    assert json.loads(broker.home.run("sessions", "--json")) == []
    assert broker.call(_token(broker), "GET", "/events/v1/x").status_code == httpx.codes.OK


def test_standard_20_a_holder_ends_its_own_token(broker: RunningBroker) -> None:
    token = _token(broker)
    for _ in range(2):
        answer = broker.http.post(
            f"{broker.home.control_url}/revoke", data={"token": token}, headers=_bearer(token)
        )
        assert answer.status_code == httpx.codes.OK
    refused = broker.call(token, "GET", "/events/v1/x")
    assert refused.status_code == httpx.codes.UNAUTHORIZED
    state = broker.http.post(
        f"{broker.home.control_url}/introspect", data={"token": token}, headers=_bearer(token)
    )
    assert state.content == b'{"active":false}'


def test_c3_a_broker_does_not_start_on_a_database_that_has_forgotten(tmp_path: Path) -> None:
    home = BrokerHome.create(tmp_path / "home")
    home.run("revoke", "--all", "--yes")
    for leftover in (home.path / "data").glob("broker.db*"):
        leftover.unlink()
    with pytest.raises(RuntimeError, match="forgotten revocations"):
        home.run("serve")
    home.run("revoke", "--all", "--yes")
    with running_broker(home):
        pass


def test_c3_a_database_that_is_replaced_while_the_broker_runs_ends_all_tokens(
    upstream: int, tmp_path: Path
) -> None:
    """What is revoked from then on is in the new one, which that broker does not read."""
    home = BrokerHome.create(tmp_path / "home")
    home.run(
        *("add", "events", "--base-url", f"http://127.0.0.1:{upstream}"),
        *("--insecure-http", "--allow-private", "--secret-stdin"),
        stdin="a_key_that_no_agent_may_see\n",
    )
    data = home.path / "data"
    shutil.copy2(data / "broker.db", data / "backup")
    with running_broker(home) as broker:
        token, health = _token(broker), f"{home.control_url}/readyz"
        assert broker.call(token, "GET", "/events/v1/x").status_code == httpx.codes.OK
        for leftover in data.glob("broker.db-*"):
            leftover.unlink()
        (data / "backup").replace(data / "broker.db")
        wait_until(
            lambda: broker.call(token, "GET", "/events/v1/x").status_code != httpx.codes.OK,
            "the token to be refused",
        )
        refused = broker.call(token, "GET", "/events/v1/x")
        assert (refused.status_code, refused.headers["broker-error"]) == (
            httpx.codes.SERVICE_UNAVAILABLE,
            "revocations_unknown",
        )
        ready = broker.http.get(health)
        assert ready.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "start the broker anew" in ready.json()["checks"]["storage"]["reason"]
        with pytest.raises(RuntimeError):
            _token(broker)
    with running_broker(home) as again:
        assert again.call(_token(again), "GET", "/events/v1/x").status_code == httpx.codes.OK
