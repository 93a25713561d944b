"""The demo API: a process of its own that answers nobody without its key.

It stands for any API that a company has a key to. `broker dev` starts it and puts the key in
the broker; the agent never sees it. Run as `python -m broker.cli.demo_api`: the key is the first
line of stdin, the port is the first line of stdout, and the end of stdin is the end of it.
"""

from __future__ import annotations

import hmac
import json
import os
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

ORDERS: Final = (
    {"id": "ord_1001", "item": "espresso machine", "total": "249.00", "state": "delivered"},
    {"id": "ord_1002", "item": "grinder", "total": "119.00", "state": "shipped"},
)
_MOST_BODY: Final = 64 << 10


class DemoServer(ThreadingHTTPServer):
    """Serve the demo API, on a free port of loopback unless another address is given."""

    daemon_threads = True

    def __init__(self, key: str, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, DemoHandler)
        self.expected = f"Bearer {key}".encode()

    def server_bind(self) -> None:
        """Bind without the base's reverse DNS lookup, which can take seconds."""
        socketserver.TCPServer.server_bind(self)


class DemoHandler(BaseHTTPRequestHandler):
    """Answer one client: orders can be read, and an order can be refunded."""

    protocol_version = "HTTP/1.1"
    server_version = "demo-api"
    sys_version = ""
    timeout = 60
    server: DemoServer

    def do_GET(self) -> None:
        """Answer /v1/orders and /v1/orders/<id>."""
        if not self._has_key():
            return
        if self.path == "/v1/orders":
            self._answer(200, {"orders": ORDERS})
            return
        for order in ORDERS:
            if self.path == f"/v1/orders/{order['id']}":
                self._answer(200, order)
                return
        self._answer(404, {"error": "no such order"})

    def do_POST(self) -> None:
        """Answer /v1/refunds."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY:
            self.close_connection = True
            self._answer(413, {"error": "too large"})
            return
        self.rfile.read(int(length))
        if not self._has_key():
            return
        if self.path == "/v1/refunds":
            self._answer(201, {"refund": "re_1", "state": "done"})
        else:
            self._answer(404, {"error": "no such resource"})

    def _has_key(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if hmac.compare_digest(given, self.server.expected):
            return True
        self._answer(401, {"error": "this API needs its key"})
        return False

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent: what was called is in the broker's audit trail."""


def main() -> None:
    """Serve until stdin ends, which it does when whoever started this has ended."""
    key = sys.stdin.readline().strip()
    if not key:
        raise SystemExit("the demo API reads its key from the first line of stdin")
    server = DemoServer(key)
    try:
        os.write(sys.stdout.fileno(), b"%d\n" % server.server_address[1])
    except BrokenPipeError:
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
