from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.grammar import Field
from broker.gateway.trailers import NEVER, declared, last_chunk, read_trailers, takes_trailers
from tests.fakes.gateway import KEY
from tests.fakes.upstream import raw

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n2\r\nok\r\n0\r\n%b\r\n"
NAMES = [b"X-Checksum", b"Server-Timing", b"Grpc-Status", b"ETag"]


def field(name: bytes, value: bytes) -> Field:
    return Field(name.lower(), name, value)


def test_what_is_declared() -> None:
    fields = [field(b"Trailer", b"X-Sum, server-timing"), field(b"Trailer", b"ETag,, ")]
    assert declared([*fields, field(b"X", b"y")]) == {b"x-sum", b"server-timing", b"etag"}
    assert declared([]) == frozenset()


@given(st.sampled_from(sorted(NEVER)), st.booleans(), st.booleans())
def test_what_may_never_pass_is_not_declared(name: bytes, upper: bool, twin: bool) -> None:  # noqa: FBT001
    written = name.upper() if upper else name
    written = written.replace(b"-", b"_") if twin else written
    assert declared([field(b"Trailer", b"X-Sum, " + written)]) == {b"x-sum"}


@pytest.mark.parametrize(
    "name",
    [b"Link", b"Location", b"Operation-Location", b"Azure-AsyncOperation", b"x-goog-upload-url"],
)
def test_where_a_client_goes_on_is_not_said_where_nothing_translates_it(name: bytes) -> None:
    assert declared([field(b"Trailer", name)]) == frozenset()


@pytest.mark.parametrize(
    ("value", "takes"),
    [(b"trailers", True), (b"gzip, Trailers", True), (b"gzip", False), (b"trailersx", False)],
)
def test_who_takes_trailers(value: bytes, takes: bool) -> None:  # noqa: FBT001
    assert takes_trailers([field(b"TE", value)]) is takes
    assert not takes_trailers([field(b"X", value)])


def test_only_what_is_named_is_read() -> None:
    lines = [b"X-Sum:  1 ", b"X-Other: 2", b"x-SUM:3"]
    found = [one.line() for one in read_trailers(lines, frozenset({b"x-sum"}))]
    assert found == [b"X-Sum: 1\r\n", b"x-SUM: 3\r\n"]
    assert last_chunk(b"".join(found)) == b"0\r\nX-Sum: 1\r\nx-SUM: 3\r\n\r\n"
    assert last_chunk(b"") == b"0\r\n\r\n"


async def fetch(
    gateway: GatewayBench, *lines: tuple[str, str]
) -> tuple[h11.Response, list[h11.Event]]:
    """Get something with another's client, and return what it makes of the answer."""
    client = h11.Connection(h11.CLIENT)
    token = gateway.token().decode()
    headers = [("Host", "g"), ("Authorization", f"Bearer {token}"), *lines]
    async with gateway.connect() as wire:
        sent = client.send(h11.Request(method="GET", target="/api/x", headers=headers))
        await wire.send((sent or b"") + (client.send(h11.EndOfMessage()) or b""))
        events: list[h11.Event] = []
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = client.next_event()
            if event is h11.NEED_DATA:
                client.receive_data(await wire.reader.read(1 << 16))
            else:
                assert isinstance(event, h11.Response | h11.Data | h11.EndOfMessage)
                events.append(event)
    assert isinstance(events[0], h11.Response)
    return events[0], events[1:]


async def test_declared_trailers_reach_who_takes_them(gateway: GatewayBench) -> None:
    section = b"".join(b"%b: %d\r\n" % (name, number) for number, name in enumerate(NAMES))
    undeclared = b"X-Undeclared: 9\r\n"
    gateway.upstream.answer = raw(
        CHUNKED % (b"Trailer: %b\r\n" % b", ".join(NAMES), section + undeclared)
    )
    head, events = await fetch(gateway, ("TE", "trailers"), ("Connection", "TE"))
    names = [name.lower() for name in NAMES]
    assert dict(head.headers)[b"trailer"] == b", ".join(sorted(names))
    assert [bytes(one.data) for one in events if isinstance(one, h11.Data)] == [b"ok"]
    assert isinstance(events[-1], h11.EndOfMessage)
    assert list(events[-1].headers) == [(name, b"%d" % n) for n, name in enumerate(names)]
    received = gateway.upstream.last
    assert (received.all(b"te"), received.all(b"connection")) == ([b"trailers"], [b"TE"])
    head, events = await fetch(gateway)  # who does not say so, gets none
    assert b"trailer" not in dict(head.headers)
    assert isinstance(events[-1], h11.EndOfMessage)
    assert list(events[-1].headers) == []
    assert gateway.upstream.connections == 1


async def test_a_head_request_and_a_body_of_known_length_have_no_trailers(
    gateway: GatewayBench,
) -> None:
    te = b"TE: trailers"
    declared_only = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n%b\r\n"
    gateway.upstream.answer = raw(declared_only % b"Content-Length: 2\r\n" + b"ok")
    response = await gateway.call(b"GET", b"/api/x", te)
    assert (response.body, response.all(b"trailer")) == (b"ok", [])
    gateway.upstream.answer = raw(declared_only % b"Transfer-Encoding: chunked\r\n")
    response = await gateway.call(b"HEAD", b"/api/x", te)
    assert (response.status, response.all(b"trailer")) == (200, [])


async def test_a_secret_in_a_trailer_is_overwritten(gateway: GatewayBench) -> None:
    section = b"X-Echo: Bearer %b\r\n" % KEY.encode()
    gateway.upstream.answer = raw(CHUNKED % (b"Trailer: X-Echo\r\n", section))
    answer = await gateway.talk(
        gateway.head(b"GET", b"/api/x", b"TE: trailers", b"Connection: close")
    )
    assert answer.endswith(b"0\r\nX-Echo: Bearer %b\r\n\r\n" % (b"*" * len(KEY)))
    assert (await gateway.records())[-1]["detail"] == "credential echoed, scrubbed"


@pytest.mark.parametrize("early", [True, False])
async def test_declared_trailers_of_a_request_are_sent_on(
    gateway: GatewayBench, *, early: bool
) -> None:
    lines = (b"Transfer-Encoding: chunked", b"Trailer: X-Sum, X-Empty, Content-Type")
    token = gateway.token()
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", *lines, token=token))
        if not early:
            await asyncio.sleep(0.05)  # by now it is on its way
        await wire.send(
            b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\nX-Empty: %b\r\nContent-Type: x\r\n\r\n"
            % token
        )
        assert (await wire.response()).status == 200
    received = gateway.upstream.last
    assert received.all(b"trailer") == [b"x-empty, x-sum"]
    assert gateway.upstream.bytes_received.endswith(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert token not in gateway.upstream.bytes_received
