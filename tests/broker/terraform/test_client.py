from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError
from broker.terraform.client import AdminClient, ApiError, Target
from tests.broker.terraform.conftest import READ, STRIPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.terraform.conftest import Site

TOKEN = "atbadm_000000000000_" + "0" * 64


def test_entries_are_put_read_and_removed(site: Site) -> None:
    assert site.api.who()["name"] == "terraform"
    assert site.api.entry("services", "stripe") is None
    entry = site.api.put("services", "stripe", STRIPE, None)
    assert (entry["version"], entry["comment"]) == (1, "a test's")
    assert site.api.entry("services", "stripe") == entry
    assert site.api.summary()["version"] == 1
    site.api.remove("services", "stripe", entry["etag"])
    assert site.names("services") == []
    site.api.remove("services", "stripe", entry["etag"])


def test_refusals_have_their_code_and_their_problems(site: Site) -> None:
    site.api.put("services", "stripe", STRIPE, None)
    with pytest.raises(ApiError) as refusal:
        site.api.put("services", "stripe", STRIPE, None)
    assert refusal.value.code == "exists"
    with pytest.raises(ApiError) as refusal:
        site.api.put("scopes", "a", {**READ, "service": "stirpe"}, None)
    assert refusal.value.code == "policy_refused"
    assert refusal.value.problems[0]["field"] == "service"
    with pytest.raises(ApiError) as refusal:
        site.api.remove("services", "orders", "*")
    assert refusal.value.code == "in_file"
    edit = {"section": "scopes", "name": "a", "body": READ, "expected": None}
    assert site.api.check([edit], []) == []


@pytest.mark.parametrize("name", ["..", "a/b", "a?b", "a%2fb", "é", "a#b"])
def test_a_name_is_one_segment_of_a_path_whatever_it_holds(site: Site, name: str) -> None:
    assert site.api.entry("services", name) is None


@pytest.mark.parametrize(
    ("url", "token", "told"),
    [
        ("http://broker.example", TOKEN, "must be a URL such as https"),
        ("https://user:pass@broker.example", TOKEN, "must be a URL"),
        ("broker", TOKEN, "must be a URL"),
        ("https://broker.example", "sk_live_1234567890", "none of an administrator"),
        ("https://broker.example", TOKEN + "\r\nX: y", "none of an administrator"),
        ("https://broker.example", "", "none of an administrator"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(url: str, token: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refusal:
        Target(url, token)
    assert "sk_live" not in str(refusal.value)
    assert "pass@" not in str(refusal.value)


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Target("https://broker.example", TOKEN))


def test_an_api_that_is_not_there_is_told(site: Site) -> None:
    client = AdminClient(Target("http://127.0.0.1:1", TOKEN), None)
    with pytest.raises(ApiError, match="cannot be reached: ConnectError") as refusal:
        client.who()
    assert refusal.value.code == "unreachable"
    missing = AdminClient(Target(site.url, site.bench.token, "/nowhere.pem"), None)
    with pytest.raises(ApiError, match=r"/nowhere\.pem holds no certificates"):
        missing.who()


ANSWERS = [
    (200, b"hello"),
    (200, b"[1]"),
    (200, b"[" * 100_000),
    (200, b'{"hello": "world"}'),
    (404, b'{"detail": "not here"}'),
    (302, b""),
    (500, b"<html>"),
]


@pytest.fixture(params=ANSWERS, ids=lambda answer: f"{answer[0]}-{len(answer[1])}")
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Something else that answers."""
    status, body = request.param

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_no_admin_api_is_told(stranger: str) -> None:
    with pytest.raises(ApiError, match="no admin API of a broker"):
        AdminClient(Target(stranger, TOKEN), None).who()


def test_a_comment_is_optional(site: Site) -> None:
    client = AdminClient(Target(site.url + "/", site.bench.token), None)
    assert client.put("services", "stripe", STRIPE, None)["comment"] is None
    assert json.dumps(client.summary())
