"""U11: a service that says back what it was sent; nothing of the credential reaches the agent."""

from __future__ import annotations

import asyncio
import base64
import gzip
import zlib
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import pytest
from prometheus_client import CollectorRegistry

from tests.attacks.echoes import WRITE, Write, escaped, pieces
from tests.fakes.gateway import ALL, KEY, policy_text
from tests.fakes.upstream import raw, reply

if TYPE_CHECKING:
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received
    from tests.fakes.wire import Response


SECRET = KEY.encode()
ECHOED = "credential echoed, scrubbed"
OFF = policy_text(
    "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true, scrub: off"
)


PIECES = pieces(SECRET)


def assert_clean(*seen: bytes) -> None:
    for text in seen:
        low = text.lower()
        assert not [one for one in PIECES if one in low or one in unquote_to_bytes(low)]


def assert_scrubbed(response: Response, status: int = 200) -> None:
    assert response.status == status, response.body
    assert response.error is None
    assert_clean(response.head, response.body)
    assert b"*" * 8 in response.head + response.body


async def echoed(gateway: GatewayBench) -> list[str | None]:
    """What the outcomes say."""
    return [one.get("detail") for one in await gateway.records() if one["phase"] == "outcome"]


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
async def test_u11_in_a_body_and_in_headers(gateway: GatewayBench, write: Write) -> None:
    text = write(SECRET)
    gateway.upstream.answer = reply(b"you sent <" + text + b">", "200 OK", b"X-Echo: " + text)
    response = await gateway.call(b"GET", b"/api/x")
    assert_scrubbed(response)
    assert len(response.body) == len(b"you sent <" + text + b">")
    assert response.body.startswith(b"you sent <")
    assert len(response.one(b"x-echo") or b"") == len(text)
    assert await echoed(gateway) == [ECHOED]


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
async def test_u11_in_chunks_of_one_byte(gateway: GatewayBench, write: Write) -> None:
    body = b"<" + write(SECRET) + b">"
    chunks = b"".join(b"1\r\n%c\r\n" % one for one in body) + b"0\r\nX-Trailer: %b\r\n\r\n" % SECRET
    gateway.upstream.answer = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n" + chunks
    )
    response = await gateway.call(b"GET", b"/api/x")
    assert_scrubbed(response)
    assert len(response.body) == len(body)


@pytest.mark.parametrize("service", [name.partition(".")[0] for name in ALL[:-1]])
async def test_u11_whichever_way_the_credential_is_sent(
    gateway: GatewayBench, service: str
) -> None:
    async def reflect(received: Received, writer: asyncio.StreamWriter) -> None:
        await reply(received.head, "200 OK", b"X-Line: " + received.line)(received, writer)

    gateway.upstream.answer = reflect
    response = await gateway.call(b"GET", b"/%b/x?a=b" % service.encode())
    assert_scrubbed(response)
    assert base64.b64encode(b"account:" + SECRET) not in response.body


@pytest.mark.parametrize("write", [WRITE["raw"], WRITE["JSON \\u"], WRITE["basic"]])
async def test_u11_split_at_any_byte(gateway: GatewayBench, write: Write) -> None:
    text = b"<" + write(SECRET) + b">"

    async def halves(received: Received, writer: asyncio.StreamWriter) -> None:
        cut = int(received.target.rpartition(b"/")[2])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text[:cut])
        await writer.drain()
        await asyncio.sleep(0.002)
        writer.write(text[cut:])

    gateway.upstream.answer = halves
    token = gateway.token()
    for cut in range(len(text) + 1):
        response = await gateway.call(b"GET", b"/api/%d" % cut, token=token)
        assert_scrubbed(response)
        assert len(response.body) == len(text)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(SECRET, mtime=0)),
        (b"GZIP", gzip.compress(SECRET, mtime=0)),
        (b"deflate", zlib.compress(SECRET)),
        (b"identity, gzip", gzip.compress(SECRET, mtime=0)),
        (b"br", b"whatever"),
        (b"unheard-of", SECRET[::-1]),
    ],
)
async def test_u11_compressed_although_asked_not_to(
    gateway: GatewayBench, coding: bytes, packed: bytes
) -> None:
    gateway.upstream.answer = reply(packed, "200 OK", b"Content-Encoding: " + coding)
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x", b"Accept-Encoding: gzip, br"))
        response = await wire.response()
        assert (response.status, response.error) == (502, "response_unsearchable")
        assert packed not in response.body
        assert gateway.upstream.last.all(b"accept-encoding") == [b"identity"]
        assert "scrub: off" in response.problem["remedy"]
        gateway.upstream.answer = reply(b"fine")
        await wire.send(gateway.head(b"GET", b"/api/x"))
        assert (await wire.response()).body == b"fine"
    assert "compressed" in ((await echoed(gateway))[0] or "")


async def test_u11_a_compressed_answer_without_a_body_is_harmless(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n"
    )
    assert (await gateway.call(b"HEAD", b"/api/x")).status == 200
    gateway.upstream.answer = reply(b"", "200 OK", b"Content-Encoding: gzip")
    assert (await gateway.call(b"GET", b"/api/x")).status == 200
    gateway.upstream.answer = reply(b"plain", "200 OK", b"Content-Encoding: identity")
    assert (await gateway.call(b"GET", b"/api/x")).body == b"plain"


async def test_u11_in_pieces_by_range(gateway: GatewayBench) -> None:
    async def ranges(received: Received, writer: asyncio.StreamWriter) -> None:
        asked = received.all(b"range") + received.all(b"x-ms-range")
        if not asked:
            await reply(SECRET)(received, writer)
            return
        first, _, last = asked[0].removeprefix(b"bytes=").partition(b"-")
        part = SECRET[int(first) : int(last) + 1]
        await reply(part, "206 Partial Content", b"Content-Range: bytes 0-5/21")(received, writer)

    gateway.upstream.answer = ranges
    for name in (b"Range", b"range", b"X-Ms-Range"):
        for first in range(0, len(SECRET), 5):
            line = b"%b: bytes=%d-%d" % (name, first, first + 4)
            assert_scrubbed(await gateway.call(b"GET", b"/api/x", line, b'If-Range: "x"'))


@pytest.mark.parametrize(
    "kind", [b"Content-Range: bytes 0-4/21", b"Content-Type: multipart/byteranges; boundary=x"]
)
async def test_u11_a_part_that_nobody_asked_for(gateway: GatewayBench, kind: bytes) -> None:
    gateway.upstream.answer = reply(SECRET[:5], "206 Partial Content", kind)
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "response_unsearchable")
    assert SECRET[:5] not in response.body


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "500 Oh", "503 No"])
async def test_u11_in_error_pages(gateway: GatewayBench, status: str) -> None:
    page = b"<h1>Invalid API Key: Bearer " + SECRET + b"</h1>"
    gateway.upstream.answer = reply(page, f"{status} {KEY}", b"WWW-Authenticate: " + SECRET)
    assert_scrubbed(await gateway.call(b"POST", b"/api/x", body=b"x"), int(status[:3]))


@pytest.mark.parametrize("service", ["api", "keyed", "query", "cookie"])
@pytest.mark.parametrize(
    "line",
    [
        b"Location: https://elsewhere.example/?key=%b",
        b"Location: /login?token=%b&x=1#%b",
        b"Location: //evil.example/%b",
        b"Content-Location: /x/%b",
        b"Set-Cookie: session=%b; Path=/",
        b"Set-Cookie: other=%b; Domain=x",
        b"Link: <https://x.example/?page=2&key=%b>; rel=next",
        b'ETag: W/"%b"',
        b"%b: name",
    ],
)
async def test_u11_in_redirects_cookies_and_links(
    gateway: GatewayBench, service: str, line: bytes
) -> None:
    for text in (SECRET, escaped(SECRET, "%{:02X}"), SECRET.hex().encode()):
        gateway.upstream.answer = reply(b"", "302 Found", line.replace(b"%b", text))
        if line.startswith(b"%b") and b"%" in text:
            continue  # no header name has a percent sign and digits that mean a byte
        response = await gateway.call(b"GET", b"/%b/x" % service.encode())
        assert response.status == 302
        assert_clean(response.head)


@pytest.mark.timeout(20)
async def test_u11_sown_with_marks_an_answer_is_searched_in_bounded_time(
    gateway: GatewayBench,
) -> None:
    gateway.secrets.values["env:KEY"] = KEY.encode() * 50
    body = (b"%" * 12_000 + b"%73") * 340
    gateway.upstream.answer = reply(body)
    assert (await gateway.call(b"GET", b"/api/x")).body == body


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("it's-a-secret", b"it&#039;s-a-secret"),  # htmlspecialchars of PHP
        ("schlüssel-12", b'{"a": "schl\\u00fcssel-12"}'),
        ("schlüssel-12", b'{"a": "schl\\u00C3\\u00BCssel-12"}'),  # each byte for a character
        ("schlüssel-12", b"schl&#252;ssel-12"),
        ("schlüssel-12", "schlüssel-12".encode("latin-1")),
    ],
)
async def test_u11_with_characters_that_are_written_in_other_ways(
    gateway: GatewayBench, secret: str, said: bytes
) -> None:
    gateway.secrets.values["env:KEY"] = secret.encode()
    gateway.upstream.answer = reply(b"<" + said + b">")
    response = await gateway.call(b"GET", b"/basic/x")
    assert secret[-5:].encode() not in response.body
    assert response.body.startswith(b"<")
    assert await echoed(gateway) == [ECHOED]


@pytest.mark.parametrize("coding", ["utf-16", "UTF-16LE", "utf-16-be", "utf-32", "utf-7", "cp037"])
async def test_u11_in_a_charset_that_the_agent_asks_for(gateway: GatewayBench, coding: str) -> None:
    """ASP.NET and others take it from Accept."""
    body = KEY.encode(coding)
    accept = b"Accept: text/plain;charset=" + coding.encode()
    name = coding.replace("cp", "IBM").encode()
    for kind in (b"text/plain; charset=" + name, b'a/b;c=d;Charset="%b"; e' % name):
        gateway.upstream.answer = reply(body, "200 OK", b"Content-Type: " + kind)
        response = await gateway.call(b"GET", b"/api/x", accept)
        assert (response.status, response.error) == (502, "response_unsearchable")
    for kind in (b"text/plain; charset=utf-8", b"a/b;charset=iso-2022-jp", b"x/utf-16"):
        gateway.upstream.answer = reply(b"fine", "200 OK", b"Content-Type: " + kind)
        assert (await gateway.call(b"GET", b"/api/x", accept)).body == b"fine"


async def test_u11_in_interim_responses_and_trailers(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n" % SECRET
        + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"2;x=%b\r\nok\r\n0\r\nX-Trailer: %b\r\n\r\n" % (SECRET, SECRET)
    )
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x", b"Connection: close", b"TE: trailers"))
        assert_clean(await wire.rest())


async def test_u11_in_events_which_are_not_delayed(gateway: GatewayBench) -> None:
    gate = asyncio.Event()

    async def events(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
        await gate.wait()
        writer.write(b"data: " + SECRET[:9])
        await asyncio.sleep(0.01)
        writer.write(SECRET[9:] + b"\n\n")
        await gate.wait()
        writer.write(b"data: sk_live")
        writer.close()

    gateway.upstream.answer = events
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await wire.head()
        assert await wire.chunk() == b"data: one\n\n"
        gate.set()
        rest = b"".join([piece async for piece in wire.chunks()])
    assert rest == b"data: " + b"*" * len(SECRET) + b"\n\ndata: sk_live"
    assert_clean(rest)


async def test_u11_cut_short_the_beginning_of_a_secret_stays_here(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nno: " + SECRET[:-1], close=True
    )
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await wire.head()
        assert await wire.rest() == b"no: "


async def test_u11_an_echo_is_counted(gateway: GatewayBench) -> None:
    registry = CollectorRegistry()
    registry.register(gateway.metrics)
    gateway.upstream.answer = reply(SECRET)
    await gateway.call(b"GET", b"/api/x")
    await gateway.call(b"GET", b"/keyed/x")
    gateway.upstream.answer = reply(b"nothing")
    await gateway.call(b"GET", b"/api/x")
    name = "broker_gateway_echoes_total"
    assert registry.get_sample_value(name, {"service": "api"}) == 1
    assert registry.get_sample_value(name, {"service": "keyed"}) == 1
    assert sorted(await echoed(gateway), key=str) == [None, ECHOED, ECHOED]


@pytest.mark.parametrize(
    ("service", "line"),
    [
        ("api", b"Location: https://elsewhere.example/?key=%b"),
        ("query", b"Location: /again?api_key=%b&x=1"),
        ("cookie", b"Set-Cookie: session=%b; Path=/"),
    ],
)
async def test_u11_an_echo_that_is_left_out_of_the_head_is_on_record_too(
    gateway: GatewayBench, service: str, line: bytes
) -> None:
    for text in (SECRET, b"nothing"):
        gateway.upstream.answer = reply(b"", "302 Found", line.replace(b"%b", text))
        response = await gateway.call(b"GET", b"/%b/x" % service.encode())
        assert response.status == 302
        assert_clean(response.head)
    assert await echoed(gateway) == [ECHOED, None]


async def test_u11_a_secret_too_short_to_tell_is_not_sent(gateway: GatewayBench) -> None:
    gateway.secrets.values["env:KEY"] = b"1234567"
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "credential_refused")
    assert not gateway.upstream.requests
    assert "scrub: off" in ((await echoed(gateway))[0] or "")


async def test_u11_switched_off_everything_passes(gateway: GatewayBench) -> None:
    gateway.load(OFF)
    gateway.secrets.values["env:KEY"] = b"short"
    gateway.upstream.answer = reply(gzip.compress(b"short"), "200 OK", b"Content-Encoding: gzip")
    lines = (b"Accept-Encoding: gzip", b"Range: bytes=0-4", b'If-Range: "x"')
    response = await gateway.call(b"GET", b"/api/x", *lines)
    assert gzip.decompress(response.body) == b"short"
    received = gateway.upstream.last
    assert received.all(b"accept-encoding") == [b"gzip"]
    assert received.all(b"range") == [b"bytes=0-4"]
    gateway.upstream.answer = reply(b"sho", "206 Partial Content", b"Content-Range: bytes 0-2/5")
    assert (await gateway.call(b"GET", b"/api/x", *lines)).status == 206
