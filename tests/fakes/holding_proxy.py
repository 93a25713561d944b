"""A proxy before a server, which holds a request or its answer for as long as a test wants."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

Side = Literal["before", "after"]
_PATIENCE = 60.0


@dataclass
class HoldingProxy:
    """What the proxy at `address` does: nothing but pass on, until told."""

    address: str = ""
    requests: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    _holds: dict[tuple[str, Side], bool] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def hold(self, *moments: tuple[str, Side]) -> None:
        """Hold one request at each moment: the first whose path has that part.

        It is held before it is passed on, or when it has been answered.
        """
        with self._changed:
            self._holds = dict.fromkeys(moments, False)

    def wait_until_held(self) -> None:
        """Return once a request is held at each moment."""
        with self._changed:
            held = self._changed.wait_for(lambda: all(self._holds.values()), _PATIENCE)
        assert held, f"not every moment came: {self._holds}"

    def release(self) -> None:
        """Let everything through again."""
        with self._changed:
            self._holds = {}
            self._changed.notify_all()

    def refuse(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, and pass none of them on."""
        self.answers[:] = statuses

    def pass_by(self, path: str, side: Side) -> None:
        """Wait here if this is the request to be held."""
        with self._changed:
            for moment, held in self._holds.items():
                if moment[0] in path and moment[1] == side and not held:
                    self._holds[moment] = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: not self._holds, _PATIENCE)
                    return


@contextmanager
def holding_proxy(upstream: str) -> Iterator[HoldingProxy]:
    """Serve on 127.0.0.1 before `upstream` until the block ends."""
    proxy = HoldingProxy()
    place = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            proxy.requests.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if proxy.answers:
                self.answer(proxy.answers.pop(0), {}, b"{}")
                return
            proxy.pass_by(self.path, "before")
            connection = http.client.HTTPConnection(place, timeout=_PATIENCE)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
            proxy.pass_by(self.path, "after")
            self.answer(response.status, dict(response.headers), content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the base class's names

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            try:
                self.send_response(status)
                for name in ("Content-Type",):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:
                self.close_connection = True  # who asked has been killed

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A caller that is killed in the middle of a request is what this is for."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.release()
        server.shutdown()
        server.server_close()
        thread.join()
