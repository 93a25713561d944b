"""`broker token` where it fails; where it works is shown in tests/broker/app/test_server.py."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from broker.cli.play import claims_of
from tests.components.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.cli.conftest import Commands


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[int, list[dict[str, list[str]]]]]:
    """Answer each POST alike; give the port, and the forms that came."""
    forms: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            forms.append(parse_qs(self.rfile.read(length).decode()))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_address[1], forms
    server.shutdown()
    server.server_close()
    thread.join()


def on_port(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("BROKER_CONTROL_PORT", str(port))


def test_prints_the_token_alone(broker: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300, "scope": "x.read"}
    with answering(200, json.dumps(answer).encode()) as (port, forms):
        on_port(monkeypatch, port)
        options = ("--scope", "x.read", "--scope", "x.list", "--task", "t", "--reason", "r")
        assert broker.ok("token", *options, "--ttl", "5m").out == "a.b.c\n"
        assert broker.ok("token", "--scope", "x.read", "--json").data == answer
    form = {name: values[0] for name, values in forms[0].items()}
    claims = claims_of(form.pop("client_assertion"))
    assert claims["iss"] == claims["sub"] == "my-agent"
    assert claims["aud"] == f"http://127.0.0.1:{port}"
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "my-agent",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "scope": "x.read x.list",
        "task": "t",
        "reason": "r",
        "ttl": "300",
    }


def test_without_a_broker_it_says_how_to_start_one(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_port(monkeypatch, free_port())
    ran = broker.run("token", "--scope", "x.read")
    assert ran.status == 1
    assert ran.out == ""
    assert "broker serve" in ran.err


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            400,
            b'{"error": "invalid_scope", "error_description": "ask for x"}',
            "refused: ask for x",
        ),
        (400, b'{"error": "invalid_scope"}', "refused: invalid_scope"),
        (400, b'{"error": "a\\u001b[2Jb"}', "refused: a\\x1b[2Jb"),
        (200, b'{"scope": "x"}', "is not a broker"),
        (200, b"[]", "is not a broker"),
        (200, b"<html>", "is not a broker"),
        (307, b"", "is not a broker"),
    ],
)
def test_a_refusal_is_told_and_no_token_printed(
    broker: Commands, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, told: str
) -> None:
    with answering(status, body) as (port, _):
        on_port(monkeypatch, port)
        ran = broker.run("token", "--scope", "x.read")
    assert ran.status == 1
    assert ran.out == ""
    assert told in ran.err


def test_an_agent_that_no_policy_has_is_told_how_to_get_in(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(400, b'{"error": "invalid_client"}') as (port, _):
        on_port(monkeypatch, port)
        assert "broker agents grant my-agent" in broker.refused("token", "--scope", "x.read")
        broker.ok("add", "stripe", "--secret-stdin", stdin="k\n")
        assert "next:" not in broker.refused("token", "--scope", "x.read")
        (broker.home / "policies/bad.yaml").write_text("scops: {}")
        assert "broker policy check" in broker.refused("token", "--scope", "x.read")


def test_a_time_that_is_none_is_told(broker: Commands) -> None:
    assert "--ttl is 'soon'" in broker.refused("token", "--scope", "x.read", "--ttl", "soon")


def test_an_agent_without_a_key_here_is_told(broker: Commands) -> None:
    told = broker.refused("token", "--scope", "x.read", "--agent", "other")
    assert "broker agents enroll other" in told
    assert "choose from: my-agent" in told


def test_a_key_that_others_can_read_is_not_used(broker: Commands) -> None:
    key = broker.home / "agents/my-agent.pem"
    key.chmod(0o644)
    assert f"chmod 600 {key}" in broker.refused("token", "--scope", "x.read")


def test_a_scope_must_be_named(broker: Commands) -> None:
    assert broker.run("token").status == 2
