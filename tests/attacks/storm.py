"""Requests of all kinds at a broker, good and bad, whose services echo whatever they are sent."""

from __future__ import annotations

import asyncio
import base64
import gzip
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tests.attacks.echoes import WRITE
from tests.fakes.upstream import raw, reply
from tests.fakes.wire import Wire, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from tests.fakes.upstream import Answer, Received

CONNECTIONS: Final = 8
GOOD: Final = 0.7
"""How much of what is sent gets to a service."""


_LONG: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"


class Echo:
    """A service that says back the request it gets, each time in another way."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._shapes: Sequence[Callable[[bytes, bytes], Answer]] = (
            lambda text, _: reply(text),
            lambda text, _: reply(b"<h1>" + text + b"</h1>", "401 Unauthorized"),
            lambda _, value: reply(b"ok", "200 OK", b"X-Echo: " + value),
            lambda _, value: reply(b"", "302 Found", b"Location: https://x.example/?a=" + value),
            lambda _, value: reply(b"", "302 Found", b"Location: /fault", b"X-Echo: " + value),
            lambda _, value: reply(b"", "200 OK", b"Set-Cookie: other=" + value),
            lambda text, value: reply(text, "500 " + value.decode("latin-1")),
            lambda text, _: reply(gzip.compress(text, 1), "200 OK", b"Content-Encoding: gzip"),
            lambda text, _: self._chunked(text),
            lambda text, _: raw(_LONG + text, close=True),
            lambda text, _: raw(b"HTTP/1.1 200 OK\r\n\r\n" + text, close=True),
            lambda _, value: raw(b"HTTP/1.1 200 OK\r\nX-Echo: " + value + b"\n\r\n", close=True),
            lambda _, value: raw(value + b"\r\n\r\n", close=True),
            lambda _, value: raw(
                b"HTTP/1.1 103 Hints\r\nLink: <%b>\r\n\r\n" % value
                + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            ),
            lambda text, _: reply(text[:9], "206 Partial Content", b"Content-Range: bytes 0-8/9"),
        )  # fmt: skip

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        random = self._random
        write = random.choice([*WRITE.values()])
        values = [value for name, value in received.headers if name != b"host"]
        credential = random.choice([*values, received.target]).rpartition(b" ")[2]
        with suppress(ValueError):
            if random.random() < 0.1:
                credential = base64.b64decode(credential, validate=True)
        text = write(received.head) if random.random() < 0.5 else b"<" + write(credential) + b">"
        value = write(credential).replace(b"\r", b"").replace(b"\n", b"").strip() or b"none"
        await random.choice(self._shapes)(text, value)(received, writer)

    def _chunked(self, text: bytes) -> Answer:
        size = self._random.randint(1, 40)
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return raw(head + framed + b"0\r\nX-Trailer: %b\r\n\r\n" % text[:20].strip())


class Storm:
    """Agents that send requests; `see` is given every byte that they get back."""

    def __init__(
        self,
        port: int,
        tokens: Sequence[tuple[str, str]],
        random: Random,
        see: Callable[[bytes], None],
    ) -> None:
        self._port = port
        self._tokens = tokens
        self._random = random
        self._see = see
        self._left = 0
        self.statuses: dict[int, int] = {}

    async def run(self, requests: int) -> None:
        """Send this many requests over some connections."""
        self._left = requests
        await asyncio.gather(*(self._agent() for _ in range(CONNECTIONS)))

    async def _agent(self) -> None:
        while self._left > 0:
            async with wire(self._port) as connection:
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    while await self._ask(connection):
                        pass

    async def _ask(self, connection: Wire) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        method, data = self._request()
        await connection.send(data)
        try:
            response = await connection.response(method)
        except asyncio.IncompleteReadError as error:
            self._see(error.partial)
            raise
        self._see(response.head + response.body)
        self.statuses[response.status] = self.statuses.get(response.status, 0) + 1
        return response.one(b"connection") != b"close" and response.status != 400

    def _request(self) -> tuple[bytes, bytes]:
        random = self._random
        service, token = random.choice(self._tokens)
        if random.random() >= GOOD:
            return b"GET", random.choice(_BAD)(service.encode(), token.encode())
        method = random.choice([b"GET", b"GET", b"POST", b"DELETE"])
        body = random.randbytes(random.randint(0, 60)) if method == b"POST" else b""
        lines = [
            b"%b /%b/v1/x?n=%d HTTP/1.1" % (method, service.encode(), random.randint(0, 99)),
            b"Host: gateway.test",
            b"Authorization: Bearer " + token.encode(),
            random.choice([b"Accept-Encoding: gzip", b"Range: bytes=0-9", b"X-A: b", b"TE: x"]),
        ]
        if body:
            lines.append(b"Content-Length: %d" % len(body))
        return method, b"\r\n".join([*lines, b"", body])


def _get(target: bytes, token: bytes, *lines: bytes) -> bytes:
    first = [b"GET %b HTTP/1.1" % target, b"Host: g", b"Authorization: Bearer " + token]
    return b"\r\n".join([*first, *lines, b"", b""])


_BAD: Final[Sequence[Callable[[bytes, bytes], bytes]]] = (
    lambda service, token: _get(b"/%b/admin/x" % service, token),
    lambda service, token: _get(b"/%b/v1/%%2e%%2e/x" % service, token),
    lambda service, token: _get(b"/%b/v1/x" % service, token[:-4] + b"AAAA"),
    lambda service, _: _get(b"/%b/v1/x" % service, b"nonsense"),
    lambda service, token: _get(b"/%b/v1/x?t=%b" % (service, token), token),
    lambda service, token: _get(b"/%b/v1/x" % service, token, b"Upgrade: websocket"),
    lambda service, token: _get(b"/%b/v1/x" % service, token, b"Expect: 200-ok"),
    lambda service, token: _get(b"/%b/v1/x" % service, token, b"Content-Length: x"),
    lambda service, token: _get(b"/%b/v1/x" % service, token, b"A: " + b"a" * 40_000),
    lambda _, token: _get(b"/unheard-of/v1/x", token),
    lambda _, token: _get(b"/spoilt/v1/x", token),
    lambda _service, _token: b"GET /x HTTP/1.1\nHost: g\r\n\r\n",
    lambda _service, _token: b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
)
