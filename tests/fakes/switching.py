"""Ask for a websocket, and agree to one, byte by byte."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

ASKED = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
"""The lines that ask for a websocket, with RFC 6455's own key."""

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What a service answers to that key."""


def handshake(gateway: GatewayBench, *lines: bytes, token: bytes | None = None) -> bytes:
    """The whole head of such a request."""
    return gateway.head(b"GET", b"/api/ws", *ASKED, *lines, token=token)


async def agree(received: Received, writer: asyncio.StreamWriter) -> None:
    """Answer as a service that speaks websocket."""
    (key,) = received.all(b"sec-websocket-key")
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False)
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()) + b"\r\n\r\n"
    )
    await writer.drain()
