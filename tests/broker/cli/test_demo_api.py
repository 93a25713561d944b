from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "demo_key-of-the-test"


@pytest.fixture
def api() -> Iterator[int]:
    """Run the demo API as `broker dev` does; give its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.cli.demo_api"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{KEY}\n")
        process.stdin.flush()
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def ask(port: int, method: str, path: str, key: str | None, body: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection.request(method, path, body or None, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "x", "\u00e9"])
def test_refuses_whoever_has_not_its_key(api: int, key: str | None) -> None:
    assert ask(api, "GET", "/v1/orders", key)[0] == 401
    assert ask(api, "POST", "/v1/refunds", key, "{}")[0] == 401


def test_answers_whoever_has_its_key(api: int) -> None:
    status, body = ask(api, "GET", "/v1/orders", KEY)
    assert (status, body["orders"][0]["id"]) == (200, "ord_1001")
    assert ask(api, "GET", "/v1/orders/ord_1002", KEY)[1]["item"] == "grinder"
    assert ask(api, "GET", "/v1/orders/ord_9", KEY)[0] == 404
    assert ask(api, "POST", "/v1/refunds", KEY, '{"order": "ord_1001"}')[0] == 201
    assert ask(api, "POST", "/v1/orders", KEY, "{}")[0] == 404


def test_does_not_read_a_large_body(api: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api, timeout=10)
    connection.putrequest("POST", "/v1/refunds")
    connection.putheader("Content-Length", "1000000000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_wants_its_key_on_stdin() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "broker.cli.demo_api"],
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    assert ended.returncode == 1
    assert "first line of stdin" in ended.stderr
