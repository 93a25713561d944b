"""A server that answers Vault's requests as a test wants, to show what a real one will not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


ENDLESS: Final = b"..."
"""An answer that ends with this never stops, and never ends."""


@dataclass
class FakeVault:
    """Give `answers` one after the other, the last one again and again; keep the requests."""

    answers: list[bytes]
    address: str = ""
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(content)
            while content.endswith(ENDLESS):
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.write(ENDLESS)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has left
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()


def answer(status: int, body: object = None, **headers: str) -> bytes:
    """Return an HTTP response with a JSON body, which closes the connection."""
    content = json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\nConnection: close\r\n{head}\r\n".encode() + content


@contextlib.asynccontextmanager
async def fake_vault(
    *answers: bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeVault]:
    """Serve on 127.0.0.1 until the block ends."""
    fake = FakeVault(list(answers))
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(fake.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    fake.address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield fake
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
