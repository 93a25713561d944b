"""A server on https://127.0.0.1 that answers what a test says, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.tls import TestAuthority


@dataclass(frozen=True)
class Sent:
    """A request as it arrived; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form, each of which stands there once."""
        fields = parse_qs(self.body.decode(), strict_parsing=True, keep_blank_values=True)
        assert all(len(values) == 1 for values in fields.values())
        return {name: values[0] for name, values in fields.items()}

    @property
    def document(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)


@dataclass
class Endpoint:
    """The server: `answers` are given in their order, the last one again and again."""

    url: str
    ca_file: Path
    answers: deque[tuple[int, Any]] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)
    delay: float = 0.0

    def say(self, status: int, body: Any) -> None:
        """Add an answer: a document, or bytes that are none."""
        self.answers.append((status, body))

    def next_answer(self) -> tuple[int, bytes]:
        """Return what to answer now."""
        status, body = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        return status, body if isinstance(body, bytes) else json.dumps(body).encode()


def token(value: str = "token-1", **more: Any) -> dict[str, Any]:
    """Return a good answer of a token endpoint."""
    return {"access_token": value, "token_type": "Bearer", "expires_in": 600, **more}


@pytest.fixture
def endpoint(tls_authority: TestAuthority) -> Iterator[Endpoint]:
    """A server of the test's own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            known.sent.append(Sent(self.path, headers, body))
            time.sleep(known.delay)
            status, answer = known.next_answer()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    certificate = tls_authority.certificate("127.0.0.1")
    server.socket = certificate.context().wrap_socket(server.socket, server_side=True)
    url = f"https://127.0.0.1:{server.server_address[1]}"
    known = Endpoint(url, tls_authority.ca_file)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield known
    server.shutdown()
    thread.join()
    server.server_close()
