"""An authorisation server for Envoy's ext_authz, over HTTP: as lean as Python can have it.

`python -m bench.peers.ext_authz PORT JWKS RULES` reads the credential from the environment. Envoy
asks with the method, the path and the Authorization field of the request; 200 lets it pass, with
the field that it is to carry upstream instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import httptools

from bench.peers.answering import answer

if TYPE_CHECKING:
    from bench.peers.decision import Decision

_DENIED: Final = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"


class Answering(asyncio.Protocol):
    """One of Envoy's connections."""

    def __init__(self, decision: Decision, key: str) -> None:
        self._decision = decision
        self._allowed = (
            f"HTTP/1.1 200 OK\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n"
        ).encode()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = ""
        self._authorization: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (`asyncio.Protocol`)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read questions (`asyncio.Protocol`)."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Forget the last question (httptools)."""
        self._target, self._authorization = "", None

    def on_url(self, url: bytes) -> None:
        """Take the target (httptools)."""
        self._target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take the one field that counts (httptools)."""
        if name.lower() == b"authorization":
            self._authorization = value.decode("latin-1")

    def on_message_complete(self) -> None:
        """Answer (httptools)."""
        method = self._parser.get_method().decode()
        good = self._decision.allows(method, self._target, self._authorization)
        if self._transport is not None:
            self._transport.write(self._allowed if good else _DENIED)


if __name__ == "__main__":
    answer(Answering)
