"""The addon that mitmproxy loads: judge a request, swap its header, drop its prefix.

It runs in the peers' own environment, where of this project only `decision` can be imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mitmproxy import http

from bench.peers.decision import Decision

_PREFIX: Final = "/api"


class Gate:
    """Let through what the rules allow."""

    def __init__(self) -> None:
        self._credential = f"Bearer {os.environ['BENCH_KEY']}"
        jwks, rules = (Path(os.environ[name]) for name in ("BENCH_JWKS", "BENCH_RULES"))
        self._decision = Decision(jwks, rules, _PREFIX)

    def request(self, flow: http.HTTPFlow) -> None:
        """Judge a request (mitmproxy's event of this name)."""
        request = flow.request
        token = request.headers.get("authorization")
        if self._decision.allows(request.method, request.path, token):
            request.headers["authorization"] = self._credential
            request.path = request.path.removeprefix(_PREFIX)
        else:
            flow.response = http.Response.make(403)


addons = [Gate()]
