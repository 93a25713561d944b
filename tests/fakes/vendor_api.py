"""A vendor's API on 127.0.0.1: what OpenAI's, Stripe's and GitHub's clients need, and a record.

It refuses every call without the key, as the vendors do, and remembers each request, so that
a test can say what arrived and what did not.
"""

from __future__ import annotations

import hmac
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.components.tls import ServerCertificate

WORDS: Final = ("Keys", " stay", " home", ".")
"""What the chat completion says; one server-sent event each where it is streamed."""

REPOSITORY: Final = "/repos/acme/shop"
PAGES: Final = 3

_PATIENCE: Final = 20.0


@dataclass(frozen=True)
class Received:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class VendorApi:
    """The running API. `key` is the only one it accepts.

    A stream sends each word after the first only once `word_seen` was released for the one
    before: whatever buffers on the way makes the test fail.
    """

    url: str
    key: str = field(repr=False)
    requests: list[Received] = field(default_factory=list, repr=False)
    word_seen: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def vendor_api(key: str, certificate: ServerCertificate) -> Iterator[VendorApi]:
    """Serve the API over TLS until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.api = VendorApi(f"https://127.0.0.1:{server.server_port}", key)
    server.socket = certificate.context().wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: VendorApi


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet: the record of requests is what tests read."""

    def do_GET(self) -> None:
        self._serve(_READS)

    def do_POST(self) -> None:
        self._serve(_WRITES)

    def _serve(self, routes: Mapping[str, Callable[[_Handler, bytes], None]]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.api.requests.append(Received(self.command, self.path, headers, body))
        scheme, _, key = headers.get("authorization", "").partition(" ")
        route = routes.get(urlsplit(self.path).path)
        if scheme not in {"Bearer", "token"} or not hmac.compare_digest(key, self.server.api.key):
            self._refuse(HTTPStatus.UNAUTHORIZED, "Invalid API Key provided")
        elif route is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"Unrecognized request URL ({self.command})")
        else:
            route(self, body)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer({"error": {"type": "invalid_request_error", "message": message}}, status)

    def _answer(
        self, document: Any, status: HTTPStatus = HTTPStatus.OK, link: str | None = None
    ) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        if link is not None:
            self.send_header("Link", link)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _list_charges(self, _: bytes) -> None:
        query = parse_qs(urlsplit(self.path).query)
        charges = [_charge(number) for number in range(int(query.get("limit", ["1"])[0]))]
        self._answer({"object": "list", "url": "/v1/charges", "has_more": False, "data": charges})

    def _list_issues(self, _: bytes) -> None:
        """Answer a page of issues as GitHub does: what follows is under another path (RFC 8288)."""
        page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
        link = None
        if page < PAGES:
            there = f"{self.server.api.url}/repositories/7/issues?page="
            link = f'<{there}{page + 1}>; rel="next", <{there}{PAGES}>; rel="last"'
        issue = {"number": page, "title": f"Issue {page}", "url": f"{REPOSITORY}/issues/{page}"}
        self._answer([issue], link=link)

    def _create_refund(self, body: bytes) -> None:
        form = parse_qs(body.decode())
        self._answer(
            {
                "id": "re_1",
                "object": "refund",
                "charge": form["charge"][0],
                "amount": int(form["amount"][0]),
                "status": "succeeded",
            }
        )

    def _complete_chat(self, body: bytes) -> None:
        if json.loads(body).get("stream"):
            self._stream_chat()
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer(_completion("chat.completion", choice))

    def _stream_chat(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(WORDS):
            if number and not self.server.api.word_seen.acquire(timeout=_PATIENCE):
                self.close_connection = True
                return
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            self._chunk(json.dumps(_completion("chat.completion.chunk", choice)))
        self._chunk("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))


def _charge(number: int) -> dict[str, Any]:
    return {"id": f"ch_{number}", "object": "charge", "amount": 1000 + number, "currency": "eur"}


def _completion(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c_1", "object": kind, "created": 1, "model": "m", "choices": [choice]}


_READS: Final = {
    "/v1/charges": _Handler._list_charges,
    f"{REPOSITORY}/issues": _Handler._list_issues,
    "/repositories/7/issues": _Handler._list_issues,
}
_WRITES: Final = {
    "/v1/chat/completions": _Handler._complete_chat,
    "/v1/refunds": _Handler._create_refund,
}
