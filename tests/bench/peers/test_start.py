from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from bench.broker import Broker
from bench.peers import start
from bench.peers.base import Peer, Setting
from bench.processes import MissingProgram

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "e30.e30." + "A" * 86


class LettingAllPass(BaseHTTPRequestHandler):
    """A control plane with no keys, and a proxy that asks nobody."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), LettingAllPass) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def broker(tmp_path: Path, port: int) -> Broker:
    return Broker(1, 1, port, TOKEN, tmp_path / "home", {})


def test_a_peer_that_is_not_installed_is_skipped_by_name(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def absent(setting: Setting) -> Iterator[Peer]:
        if setting.folder.is_dir():
            raise MissingProgram("it was not found. On Debian or Ubuntu: apt-get install it")
        yield Peer(1, ())

    monkeypatch.setattr(start, "PEERS", {"absent": absent, "unwanted": absent})
    with ExitStack() as stack:
        peers, skipped = start.start_peers(stack, broker, 1, "key", ["absent"])
    assert peers == {}
    assert skipped == {"absent": "it was not found. On Debian or Ubuntu: apt-get install it"}


def test_a_peer_that_decides_nothing_is_not_measured(
    broker: Broker, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def lax(_: Setting) -> Iterator[Peer]:
        yield Peer(port, ())

    monkeypatch.setattr(start, "PEERS", {"lax": lax})
    with ExitStack() as stack, pytest.raises(RuntimeError, match="lax answered 200 where 403"):
        start.start_peers(stack, broker, 1, "key", ["lax"])
