"""A reverse proxy of Node and undici."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.peers.base import FOLDER, Peer, Setting
from bench.processes import MissingProgram, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def node_undici(setting: Setting) -> Iterator[Peer]:
    """Run the proxy in the Node that is installed."""
    if not (FOLDER.parent / "node_modules" / "undici").is_dir():
        raise MissingProgram("undici was not found in bench/node_modules: run `make bench`")
    port = free_port()
    environment = os.environ | {
        "BENCH_PORT": str(port),
        "BENCH_UPSTREAM": str(setting.upstream),
        "BENCH_KEY": setting.key,
        "BENCH_JWKS": str(setting.jwks),
        "BENCH_RULES": str(setting.rules),
        "NODE_ENV": "production",
    }
    command = [program("node"), str(FOLDER / "undici.mjs")]
    with running(command, port, setting.core, environment) as pid:
        yield Peer(port, (pid,))
