"""An STS that writes down what it is asked, and answers or fails as a test says."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE: Final = "https://sts.amazonaws.com/doc/2011-06-15/"
SESSION: Final = """<{action}Response xmlns="{namespace}"><{action}Result>
<Credentials><AccessKeyId>ASIAMINTED</AccessKeyId><SecretAccessKey>minted-secret</SecretAccessKey>
<SessionToken>minted-token</SessionToken><Expiration>{expiration}</Expiration>
</Credentials><PackedPolicySize>{packed}</PackedPolicySize>{source}
</{action}Result></{action}Response>"""
ERROR: Final = """<ErrorResponse xmlns="{namespace}"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"""


@dataclass
class Sts:
    """A running server, and the calls it has had: their parameters, in order."""

    url: str
    calls: list[dict[str, str]] = field(default_factory=list)

    def only(self) -> dict[str, str]:
        """Return the one call that there was."""
        (call,) = self.calls
        return call

    def policy(self) -> dict[str, Any]:
        """Return the session policy of the one call."""
        document: dict[str, Any] = json.loads(self.only()["Policy"])
        return document


@dataclass(frozen=True)
class Answer:
    """What every call is answered with: a session, an error's `code`, or `body`.

    The server waits for `hold` first, if there is one.
    """

    status: int = 200
    code: str = ""
    message: str = ""
    packed: int = 12
    expiration: str = "2030-01-01T00:00:00Z"
    source_identity: str | None = None
    body: str | None = None
    hold: threading.Event | None = None

    def to(self, action: str) -> bytes:
        """Return the answer's body."""
        source = self.source_identity and (
            f"<SourceIdentity>{escape(self.source_identity)}</SourceIdentity>"
        )
        template = self.body or (ERROR if self.code else SESSION)
        return template.format(
            namespace=NAMESPACE,
            action=action,
            code=escape(self.code),
            message=escape(self.message),
            packed=self.packed,
            expiration=self.expiration,
            source=source or "",
        ).encode()


@contextmanager
def answering(*told: Any, **fields: Any) -> Iterator[Sts]:
    """Run a server that gives every call the same `Answer`, made of these fields."""
    answer = Answer(*told, **fields)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
            call = dict(parse_qsl(sent, keep_blank_values=True))
            sts.calls.append(call)
            if answer.hold is not None:
                answer.hold.wait(10)
            payload = answer.to(call["Action"])
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sts = Sts(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield sts
        finally:
            if answer.hold is not None:
                answer.hold.set()
            server.shutdown()
            thread.join()
