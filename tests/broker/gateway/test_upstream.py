from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker.gateway.limits import GatewayLimits
from broker.gateway.upstream import UpstreamConnection
from tests.fakes.upstream import Upstream, raw, recording_upstream, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from broker.gateway.problems import Refusal
    from broker.gateway.response import ResponseHead

GET = b"GET / HTTP/1.1\r\nHost: u\r\n\r\n"


@dataclass
class Ends:
    """Pool and receiver at once: what came of a connection."""

    agent = "tester"

    given: list[UpstreamConnection] = field(default_factory=list)
    lost_count: int = 0
    heads: list[ResponseHead] = field(default_factory=list)
    body: bytes = b""
    trailers: list[bytes] = field(default_factory=list)
    done: bool = False
    refusal: Refusal | None = None
    stale: bool = False
    slow: list[bool] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def made(self, connection: UpstreamConnection) -> None:
        assert connection.usable

    def give(self, connection: UpstreamConnection) -> None:
        self.given.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        assert not connection.usable
        self.lost_count += 1
        self.changed.set()

    def answered(self, head: ResponseHead, content: bytes, *, done: bool) -> None:
        self.heads.append(head)
        self.content(content, done=done)

    def content(self, content: bytes, *, done: bool) -> None:
        assert not self.done
        self.body += content
        self.done = done
        self.changed.set()

    def trailed(self, lines: Sequence[bytes]) -> None:
        assert not self.done
        self.trailers.extend(lines)

    def failed(self, refusal: Refusal, *, stale: bool) -> None:
        self.refusal, self.stale = refusal, stale
        self.changed.set()

    def upstream_full(self) -> None:
        self.slow.append(True)

    def upstream_ready(self) -> None:
        self.slow.append(False)
        self.changed.set()

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(5):
            while not getattr(self, wanted):
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def connected(**limits: Any) -> AsyncIterator[tuple[Upstream, UpstreamConnection, Ends]]:
    async with recording_upstream() as upstream:
        ends = Ends()
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection("key", GatewayLimits(**limits), ends),
            *("127.0.0.1", upstream.port),
        )
        yield upstream, connection, ends
        connection.abort()


async def ask(connection: UpstreamConnection, ends: Ends, method: bytes = b"GET") -> None:
    connection.begin(ends, method, GET.replace(b"GET", method), whole=True)
    async with asyncio.timeout(5):
        while not ends.done and ends.refusal is None:
            ends.changed.clear()
            await ends.changed.wait()


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 3 + b"HTTP/1.1 204 X\r\n\r\n", b""),
    ],
    ids=repr,
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_clean_response_leaves_the_connection_usable(
    wire: bytes, body: bytes, pieces: int
) -> None:
    async with connected() as (upstream, connection, ends):

        async def answer(_: object, writer: asyncio.StreamWriter) -> None:
            step = len(wire) // pieces + 1
            for start in range(0, len(wire), step):
                writer.write(wire[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.001 if pieces > 1 else 0)

        upstream.answer = answer
        await ask(connection, ends)
        assert (ends.body, ends.refusal) == (body, None)
        assert len(ends.heads) == 1
        assert ends.given == [connection]
        assert connection.usable


@pytest.mark.parametrize("pieces", [1, 9])
async def test_declared_trailers_come_before_the_end(pieces: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n"
    body = b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"
    for declared, seen in ((b"Trailer: x-sum\r\n", [b"X-Sum: 1", b"X-Other: 2"]), (b"", [])):
        wire = head % declared + body
        async with connected() as (upstream, connection, ends):

            async def answer(_: object, writer: asyncio.StreamWriter, wire: bytes = wire) -> None:
                step = len(wire) // pieces + 1
                for start in range(0, len(wire), step):
                    writer.write(wire[start : start + step])
                    await asyncio.sleep(0.001)

            upstream.answer = answer
            await ask(connection, ends)
            assert (ends.body, ends.trailers) == (b"ok", seen)
            assert ends.given == [connection]


async def test_a_head_request_has_no_body_to_wait_for() -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        await ask(connection, ends, b"HEAD")
        assert ends.heads[0].length == 500
        assert ends.given == [connection]


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=repr,
)
async def test_a_connection_with_something_left_over_is_closed(wire: bytes) -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = raw(wire)
        await ask(connection, ends)
        assert ends.done
        assert ends.given == []
        assert not connection.usable


async def test_a_response_to_a_request_that_is_not_whole_is_the_connections_last() -> None:
    async with connected() as (upstream, connection, ends):
        upstream.on_head = reply()
        head = b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 9\r\n\r\n"
        connection.begin(ends, b"POST", head, whole=False)
        await ends.until("done")
        assert ends.given == []
        assert not connection.usable


async def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    async with connected() as (upstream, connection, ends):
        await ask(connection, ends)
        assert ends.given == [connection]
        (writer,) = upstream.writers
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await ends.until("lost_count")
        assert not connection.usable


async def test_a_close_ends_a_body_without_length() -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = raw(b"HTTP/1.1 200 OK\r\n\r\nall there is", close=True)
        await ask(connection, ends)
        assert (ends.body, ends.refusal) == (b"all there is", None)
        assert ends.given == []


@pytest.mark.parametrize(
    ("wire", "detail"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "in the middle"),
    ],
)
async def test_a_response_that_is_cut_short_fails(wire: bytes, detail: str) -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = raw(wire, close=True)
        connection.begin(ends, b"GET", GET, whole=True)
        await ends.until("refusal")
        assert ends.refusal is not None
        assert ends.refusal.code == "upstream_closed"
        assert detail in ends.refusal.detail
        assert not ends.stale


async def test_a_used_connection_closed_without_a_byte_is_stale() -> None:
    async with connected() as (upstream, connection, ends):
        await ask(connection, ends)
        ends.done = False
        upstream.answer = raw(b"", close=True)
        await ask(connection, ends)
        assert ends.refusal is not None
        assert ends.stale


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
    ids=lambda wire: repr(wire)[:60],
)
async def test_what_is_not_http_fails_and_closes(wire: bytes) -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = raw(wire)
        await ask(connection, ends)
        assert ends.refusal is not None
        assert ends.refusal.code == "upstream_malformed"
        assert not connection.usable
        assert ends.given == []


async def test_a_slow_upstream_is_passed_on() -> None:
    async with connected(buffer_bytes=1000) as (upstream, connection, ends):
        gate = asyncio.Event()

        async def hold(*_: object) -> None:
            await gate.wait()

        upstream.on_head = hold
        size = 40_000_000
        head = b"POST / HTTP/1.1\r\nHost: u\r\nContent-Length: %d\r\n\r\n" % size
        connection.begin(ends, b"POST", head, whole=False)
        connection.write(b"x" * size)
        connection.sent()
        assert ends.slow == [True]
        gate.set()
        await ends.until("done")
        assert ends.slow == [True, False]
        assert len(upstream.last.body) == size


async def test_a_paused_response_waits() -> None:
    async with connected() as (upstream, connection, ends):
        upstream.answer = reply(b"x" * 5_000_000)
        connection.begin(ends, b"GET", GET, whole=True)
        await ends.until("body")
        connection.pause()
        await asyncio.sleep(0.05)
        so_far = len(ends.body)
        await asyncio.sleep(0.05)
        assert len(ends.body) == so_far < 5_000_000
        connection.resume()
        await ends.until("done")
        assert len(ends.body) == 5_000_000


async def test_an_aborted_connection_says_nothing_and_takes_nothing() -> None:
    async with connected() as (_, connection, ends):
        connection.begin(ends, b"GET", GET, whole=True)
        connection.abort()
        connection.write(b"x")
        connection.pause()
        connection.resume()
        await ends.until("lost_count")
        assert ends.refusal is None
        assert not ends.done


async def test_a_defect_costs_one_response(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (_, connection, ends):
        monkeypatch.setattr(connection, "_reader", None)
        await ask(connection, ends)
        assert ends.refusal is not None
        assert ends.refusal.code == "internal_error"


@dataclass
class Broken(Ends):
    """A receiver with a defect, whose connection goes to the next in line at once."""

    following: Ends | None = None

    def give(self, connection: UpstreamConnection) -> None:
        super().give(connection)
        if self.following is not None:
            connection.begin(self.following, b"GET", GET, whole=True)

    def answered(self, head: ResponseHead, content: bytes, *, done: bool) -> None:
        raise RuntimeError("a defect", head, content, done)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_defect_costs_the_response_and_nobody_waits_for_ever(
    caplog: pytest.LogCaptureFixture,
    waits: bool,  # noqa: FBT001
) -> None:
    following = Ends()
    async with recording_upstream() as upstream:
        broken = Broken(following=following if waits else None)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection("key", GatewayLimits(), broken),
            *("127.0.0.1", upstream.port),
        )
        connection.begin(broken, b"GET", GET, whole=True)
        await broken.until("refusal")
    assert broken.refusal is not None
    assert broken.refusal.code == "internal_error"
    assert not connection.usable
    assert (following.refusal is not None, following.stale) == (waits, waits)
    assert "a defect" not in caplog.text


def test_a_connection_that_never_came_about_is_not_lost() -> None:
    ends = Ends()
    UpstreamConnection("key", GatewayLimits(), ends).connection_lost(None)
    assert ends.lost_count == 0
