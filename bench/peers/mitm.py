"""mitmproxy as a reverse proxy, with an addon that decides and swaps the header."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.peers.base import FOLDER, Peer, Setting, installed
from bench.processes import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def mitmproxy_addon(setting: Setting) -> Iterator[Peer]:
    """Run `mitmdump`, which prints nothing."""
    port = free_port()
    command = [installed("mitmdump"), "--quiet", "--listen-host", "127.0.0.1"]
    command += ["--mode", f"reverse:http://127.0.0.1:{setting.upstream}", "-p", str(port)]
    command += ["--set", f"confdir={setting.folder}", "-s", str(FOLDER / "mitm_addon.py")]
    environment = os.environ | {
        "PYTHONPATH": str(FOLDER.parent.parent),
        "BENCH_KEY": setting.key,
        "BENCH_JWKS": str(setting.jwks),
        "BENCH_RULES": str(setting.rules),
    }
    with running(command, port, setting.core, environment) as pid:
        yield Peer(port, (pid,))
