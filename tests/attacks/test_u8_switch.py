"""U8: a connection changes its protocol only where policy, agent and service all say so.

Known attacks: h2c smuggling (Bishop Fox, 2020), websocket smuggling behind a handshake that fails
(0ang3el, 2019): a proxy that goes blind before the service has agreed lets through whatever the
agent sends next.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.revoked import revocation
from tests.fakes.gateway import KEY, socket_policy
from tests.fakes.switching import ACCEPT, ASKED, agree, handshake
from tests.fakes.upstream import raw, reply

if TYPE_CHECKING:
    from broker.model import RevocationKind
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Answer, Received

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"
AGREED = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.fixture(autouse=True)
def open_to_websockets(gateway: GatewayBench) -> None:
    """All of this holds where websockets are allowed."""
    gateway.load(socket_policy())


async def outcomes(gateway: GatewayBench) -> list[dict[str, Any]]:
    return [one for one in await gateway.records() if one["phase"] == "outcome"]


@pytest.mark.parametrize(
    "upgrade",
    [
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        (b"Connection: Upgrade", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Upgrade: websocket, h2c", *ASKED[2:]),
        (b"Connection: Upgrade", b"Upgrade: h2c, websocket", *ASKED[2:]),
        (*ASKED, b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Upgrade: TLS/1.2"),
        (b"Connection: Upgrade", b"Upgrade: HTTP/2.0"),
        (b"Connection: Upgrade", b"Upgrade: connect-ip"),
        (b"Connection: Upgrade", b"Upgrade:"),
        (b"Upgrade: h2c",),
    ],
    ids=repr,
)
async def test_u8_no_other_protocol_ever(gateway: GatewayBench, upgrade: tuple[bytes, ...]) -> None:
    response = await gateway.call(b"GET", b"/api/x", *upgrade)
    assert (response.status, response.error) == (403, "upgrade_refused")
    assert gateway.upstream.bytes_received == b""


async def test_u8_http2_with_prior_knowledge_is_not_spoken(gateway: GatewayBench) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    answer = await gateway.talk(preface)
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("target", "token_scopes"), [(b"/keyed/x", ()), (b"/api/v1/x", ("api.read",))]
)
async def test_u8_denied_unless_the_scope_says_so(
    gateway: GatewayBench, target: bytes, token_scopes: tuple[str, ...]
) -> None:
    token = gateway.token(*token_scopes)
    response = await gateway.call(b"GET", target, *ASKED, token=token)
    assert (response.status, response.error) == (403, "upgrade_refused")
    assert gateway.upstream.bytes_received == b""
    assert (await gateway.records())[-1]["decision"] == "deny"


async def test_u8_a_plain_request_does_not_become_an_upgrade(gateway: GatewayBench) -> None:
    """What only looks like a part of a handshake is not sent on."""
    lines = (b"Connection: X-Hop", b"HTTP2-Settings: AAMAAABk", ASKED[3])
    assert (await gateway.call(b"GET", b"/api/x", *lines)).status == 200
    received = gateway.upstream.last
    for name in (b"connection", b"upgrade", b"http2-settings"):
        assert not received.all(name)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize("lines", [b"", AGREED, b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_u8_101_that_nobody_asked_for_is_a_502(
    gateway: GatewayBench, method: bytes, lines: bytes
) -> None:
    gateway.upstream.answer = raw(SWITCH + lines + b"\r\n" + POISON)
    answer = await gateway.talk(gateway.head(method, b"/api/x", b"Connection: close"))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nBroker-Error: upstream_malformed\r\n" in answer
    assert b"poison" not in answer
    gateway.upstream.answer = reply(b"clean")
    assert (await gateway.call(b"GET", b"/api/y")).body == b"clean"
    assert gateway.upstream.connections == 2


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        AGREED.replace(ACCEPT, b"x" * 28),
        AGREED.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        AGREED.replace(b"Connection: Upgrade", b"Connection: close"),
        AGREED + AGREED,
        AGREED + b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        AGREED + b"Sec-WebSocket-Protocol: not-offered\r\n",
        AGREED + b"Content-Length: 0\r\n",
        AGREED + b"Transfer-Encoding: chunked\r\n",
        AGREED + b"X: a\x00b\r\n",
        AGREED.replace(b"\r\n", b"\n"),
    ],
    ids=repr,
)
async def test_u8_a_handshake_that_is_not_agreed_on_opens_nothing(
    gateway: GatewayBench, lines: bytes
) -> None:
    gateway.upstream.answer = raw(SWITCH + lines + b"\r\n" + POISON)
    # The agent's own offer of the extension is not sent on, so it does not make it right.
    offer = b"Sec-WebSocket-Extensions: permessage-deflate"
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway, offer) + b"\x81\x80mask")
        response = await wire.response()
        assert (response.status, response.error) == (502, "upstream_malformed")
    await gateway.upstream.until_aborted()
    assert b"mask" not in gateway.upstream.bytes_received
    assert b"permessage-deflate" not in gateway.upstream.bytes_received


REFUSALS: list[Answer] = [
    reply(b"no", "200 OK"),
    reply(b"no", "403 Forbidden"),
    reply(b"no", "426 Upgrade Required", b"Upgrade: websocket", b"Connection: Upgrade"),
    raw(b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
    raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\nno"),
]


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_u8_what_follows_a_failed_handshake_is_judged_for_itself(
    gateway: GatewayBench, refuse: Answer
) -> None:
    """The service reads it as a request: so it must have been judged as one."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        await (refuse if received.target == b"/ws" else reply(b"judged"))(received, writer)

    gateway.upstream.answer = answer
    token = gateway.token()
    async with gateway.connect() as wire:
        await wire.send(
            handshake(gateway, token=token)
            + gateway.head(b"POST", b"/api/admin/smuggled", token=token)
            + gateway.head(b"GET", b"/api/smuggled", token=b"")
            + gateway.head(b"GET", b"/api/fine", token=token)
        )
        first = await wire.response()
        assert (first.body, first.error) == (b"no", None)
        assert not first.all(b"upgrade")
        assert (await wire.response()).error == "policy_denied"
        assert (await wire.response()).error == "token_missing"
        assert (await wire.response()).body == b"judged"
    assert [one.target for one in gateway.upstream.requests] == [b"/ws", b"/fine"]
    assert b"smuggled" not in gateway.upstream.bytes_received
    # Whatever the service made of the handshake: that connection serves nothing else.
    assert gateway.upstream.connections == 2


@pytest.mark.parametrize(
    ("line", "status", "error"),
    [
        (b"Sec-WebSocket-Version: 1337", 426, "websocket_version_refused"),
        (b"Sec-WebSocket-Key: short", 400, "malformed_request"),
        (b"Content-Length: 5", 400, "malformed_request"),
        (b"Transfer-Encoding: chunked", 400, "malformed_request"),
    ],
)
async def test_u8_a_bad_handshake_ends_here(
    gateway: GatewayBench, line: bytes, status: int, error: str
) -> None:
    """A version that the service refuses and the proxy does not look at opens a blind tunnel."""
    name = line.split(b":")[0] + b":"
    lines = [one for one in ASKED if not one.startswith(name)]
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/ws", *lines, line))
        response = await wire.response()
        assert (response.status, response.error) == (status, error)
        if status == 426:
            assert response.one(b"sec-websocket-version") == b"13"
            assert response.one(b"upgrade") == b"websocket"
            assert response.one(b"connection") == b"upgrade"
        else:
            assert await wire.closed()
    assert gateway.upstream.bytes_received == b""


async def test_u8_a_tunnel_is_its_connections_last_use(gateway: GatewayBench) -> None:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.target != b"/ws":
            await reply(b"fresh")(received, writer)
            return
        await agree(received, writer)
        writer.write(b"\x88\x02\x03\xe8")

    gateway.upstream.answer = answer
    assert (await gateway.call(b"GET", b"/api/warm")).body == b"fresh"
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway))
        assert (await wire.head()).status == 101
        assert await wire.reader.readexactly(4) == b"\x88\x02\x03\xe8"
        # To the gateway these bytes are no request any more, whatever they look like.
        await wire.send(gateway.head(b"GET", b"/api/admin/x"))
        await asyncio.sleep(0.05)
    assert (await gateway.call(b"GET", b"/api/after")).body == b"fresh"
    assert gateway.upstream.connections == 2
    done = await outcomes(gateway)
    assert sorted((one["path"], one["status"]) for one in done) == [
        ("/after", 200),
        ("/warm", 200),
        ("/ws", 101),
    ]


async def test_u8_the_task_token_stays_here(gateway: GatewayBench) -> None:
    token = gateway.token()
    gateway.upstream.answer = agree
    protocol = b"Sec-WebSocket-Protocol: chat, bearer." + token
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway, protocol, token=token))
        assert (await wire.response()).error == "token_misplaced"
        await wire.send(handshake(gateway, token=token))
        assert (await wire.head()).status == 101
    received = gateway.upstream.last
    assert received.all(b"authorization") == [b"Bearer " + KEY.encode()]
    assert token not in gateway.upstream.bytes_received


@pytest.mark.parametrize("kind", ["grant", "agent", "scope", "all"])
async def test_u15_a_revoked_websocket_is_cut(gateway: GatewayBench, kind: RevocationKind) -> None:
    gateway.upstream.answer = agree
    token = gateway.token("api.all")
    grant = gateway.grants.require(token)
    values = {"grant": grant.jti, "agent": grant.agent, "scope": "api.all", "all": ""}
    async with gateway.connect() as wire:
        await wire.send(handshake(gateway, token=token))
        assert (await wire.head()).status == 101
        gateway.grants.learn([revocation(kind, values[kind], now=time.time(), by="test")])
        gateway.server.cut(gateway.grants.is_revoked)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await wire.reader.readexactly(1)
    await gateway.upstream.until_aborted()
    (outcome,) = await outcomes(gateway)
    assert (outcome["decision"], outcome["status"]) == ("error", 101)
    assert "revoked" in outcome["detail"]
