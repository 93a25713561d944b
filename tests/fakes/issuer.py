"""A real HTTP server that plays an OpenID Connect issuer, in good days and in bad ones."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from broker.identity import jws
from broker.identity.base import Audiences, UnverifiedToken
from broker.identity.oidc import OidcSettings, OidcSource
from tests.fakes.keys import StrangersKey, strangers_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    import httpx

    from broker.model import Identity

BROKER = "https://broker.test"
NOW = 1_800_000_000.0
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks"


@dataclass(frozen=True)
class Answer:
    """What the server says to a GET; `body` may never end, `delay` is in seconds."""

    body: bytes | Callable[[], Iterable[bytes]] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


def json_answer(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


class FakeIssuer:
    """Serves discovery and keys on 127.0.0.1; `answers` overrides what a path says."""

    def __init__(self) -> None:
        self.keys: list[StrangersKey] = [strangers_key()]
        self.answers: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._released = threading.Event()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, on the port of the last time."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer._serve(self)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """Clients hang up on bombs; that is what they should do."""

        self._released.clear()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims that the broker accepts at `NOW`; a change to None leaves the claim out."""
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "repo:acme/app:ref:refs/heads/main",
            "aud": BROKER,
            "iat": int(NOW) - 5,
            "nbf": int(NOW) - 5,
            "exp": int(NOW) + 300,
            "jti": "4b0f1c0e-8f5d-4f4e-9a35-2f2d7f7f3b11",
            "repository_id": "123456",
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: StrangersKey | None = None, **changes: Any) -> str:
        return (key or self.keys[0]).token(self.claims(**changes))

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests[handler.path] += 1
        answer = self.answers.get(handler.path) or self._good_answer(handler.path)
        self._released.wait(answer.delay)
        with suppress(ConnectionError):
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("Connection", "close")
            handler.end_headers()
            for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body():
                handler.wfile.write(chunk)
                if self._released.is_set():
                    break

    def _good_answer(self, path: str) -> Answer:
        if path == DISCOVERY:
            return json_answer({"issuer": self.url, "jwks_uri": f"{self.url}{JWKS}"})
        if path == JWKS:
            return json_answer({"keys": [key.jwk() for key in self.keys]})
        return Answer(b"nothing here", status=404)


class Clock:
    """A clock that stands still until the test moves it; seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """An issuer, clocks that stand still, and sources that the real HTTP client feeds."""

    issuer: FakeIssuer
    client: httpx.AsyncClient
    wall: Clock = field(default_factory=lambda: Clock(NOW))
    monotonic: Clock = field(default_factory=lambda: Clock(1000.0))

    def source(self, **settings: Any) -> OidcSource:
        """A source for the issuer, whose settings may be changed."""
        return OidcSource(
            "issuer-under-test",
            OidcSettings(**{"issuer": self.issuer.url} | settings),
            Audiences(BROKER, f"{BROKER}/token"),
            partial(http.get_bytes, self.client, deadline=5.0),
            clock=self.wall,
            monotonic=self.monotonic,
        )


async def verified(source: OidcSource, token: str) -> Identity:
    """Read the token and have the source verify it."""
    return await source.verify(jws.parse(UnverifiedToken(token)))


@pytest.fixture
def fake_issuer() -> Iterator[FakeIssuer]:
    """An issuer in good health."""
    server = FakeIssuer()
    yield server
    server.stop()


@pytest.fixture
async def identity_bench(fake_issuer: FakeIssuer) -> AsyncIterator[Bench]:
    """All that it takes to verify an issuer's tokens."""
    async with http.client(timeout=3.0, allow_loopback_http=True) as client:
        yield Bench(fake_issuer, client)


def endless(chunk: bytes = b" " * 65_536, pause: float = 0.0) -> Callable[[], Iterable[bytes]]:
    """A body without an end."""

    def body() -> Iterable[bytes]:
        while True:
            time.sleep(pause)
            yield chunk

    return body


@pytest.fixture
def network_trap(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets nothing resolve a name or connect a socket; lists the attempts."""
    attempts: list[str] = []

    def resolve(host: object, *_: object, **__: object) -> None:
        attempts.append(f"resolve {host!r}")
        raise OSError("no name is resolved in this test")

    def connect(_: socket.socket, address: object) -> None:
        attempts.append(f"connect {address!r}")
        raise OSError("no connection is made in this test")

    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
        monkeypatch.setattr(socket, name, resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    return attempts
