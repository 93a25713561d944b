"""Run the server that a proxy asks: `python -m bench.peers.NAME PORT JWKS RULES`.

The credential that it hands to those who may have it is in the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench.peers.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(protocol: Callable[[Decision, str], asyncio.Protocol]) -> None:
    """Serve until the process is ended; `protocol` is made of the decision and the credential."""
    port, jwks, rules = sys.argv[1:]
    decision, key = Decision(Path(jwks), Path(rules), "/api"), os.environ["BENCH_KEY"]

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: protocol(decision, key), "127.0.0.1", int(port))
        await server.serve_forever()

    uvloop.run(serve())
