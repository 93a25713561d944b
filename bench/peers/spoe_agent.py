"""The agent that HAProxy asks over SPOE: as lean as Python can have it.

`python -m bench.peers.spoe_agent PORT JWKS RULES` reads the credential from the environment. Asked
with the method, the path and the Authorization field of a request that is allowed, it sets the
variable `key` to the field that the request is to carry upstream instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from bench.peers import spop
from bench.peers.answering import answer

if TYPE_CHECKING:
    from bench.peers.decision import Decision


class Answering(asyncio.Protocol):
    """One of HAProxy's connections, over which it asks about many streams."""

    def __init__(self, decision: Decision, key: str) -> None:
        self._decision = decision
        self._allowed = spop.setting("key", f"Bearer {key}")
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (`asyncio.Protocol`)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is asked, all that has come with one write (`asyncio.Protocol`)."""
        found, self._rest = spop.frames(self._rest + data)
        answers = b"".join(map(self._answer, found))
        if self._transport is not None and answers:
            self._transport.write(answers)
            if any(one.kind == spop.HAPROXY_DISCONNECT for one in found):
                self._transport.close()

    def _answer(self, asking: spop.Frame) -> bytes:
        if asking.kind == spop.NOTIFY:
            told = spop.asked(asking.payload)
            method, path, token = told["method"], told["path"], told["token"]
            good = self._decision.allows(str(method), str(path), str(token or ""))
            return spop.frame(spop.ACK, self._allowed if good else b"", asking.stream, asking.own)
        if asking.kind == spop.HAPROXY_HELLO:
            return spop.hello(int(dict(spop.pairs(asking.payload)).get("max-frame-size") or 0))
        return spop.goodbye()


if __name__ == "__main__":
    answer(Answering)
