from __future__ import annotations

import pytest

from broker.gateway.grammar import Field, connection_options, read_framing
from broker.gateway.problems import Refusal
from broker.gateway.websocket import Handshake, read_handshake, why_not_switched

# The example of RFC 6455, 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKED = {
    b"Connection": b"keep-alive, Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}
ANSWERED = {
    b"Connection": b"Upgrade",
    b"Upgrade": b"WebSocket",
    b"Sec-WebSocket-Accept": ACCEPT,
}


def fields(named: dict[bytes, bytes], *more: tuple[bytes, bytes]) -> tuple[Field, ...]:
    pairs = [*named.items(), *more]
    return tuple(Field(name.lower(), name, value) for name, value in pairs)


def asked(changes: dict[bytes, bytes | None], *more: tuple[bytes, bytes]) -> Handshake | Refusal:
    named = {name: value for name, value in {**ASKED, **changes}.items() if value is not None}
    found = fields(named, *more)
    return read_handshake(found, connection_options(found), read_framing(found))


def problem(
    changes: dict[bytes, bytes | None], *more: tuple[bytes, bytes], offer: Handshake | None = None
) -> str | None:
    named = {name: value for name, value in {**ANSWERED, **changes}.items() if value is not None}
    found = fields(named, *more)
    offer = offer or Handshake(KEY, frozenset(), frozenset())
    return why_not_switched(offer, found, connection_options(found))


def test_what_is_asked_for() -> None:
    assert asked({}) == Handshake(KEY, frozenset(), frozenset())
    offers = {
        b"Sec-WebSocket-Protocol": b"chat, superchat",
        b"Sec-WebSocket-Extensions": b"permessage-deflate; client_max_window_bits, x",
    }
    handshake = asked({**offers, b"Upgrade": b"WebSocket", b"Content-Length": b"0"})
    assert handshake == Handshake(
        KEY, frozenset({b"chat", b"superchat"}), frozenset({b"permessage-deflate", b"x"})
    )


@pytest.mark.parametrize(
    ("changes", "more", "code"),
    [
        ({b"Upgrade": b"h2c"}, (), "upgrade_refused"),
        ({b"Upgrade": b"websocket, h2c"}, (), "upgrade_refused"),
        ({b"Upgrade": b"websocket/13"}, (), "upgrade_refused"),
        ({b"Upgrade": b"websockets"}, (), "upgrade_refused"),
        ({b"Upgrade": b"TLS/1.0"}, (), "upgrade_refused"),
        ({b"Upgrade": b""}, (), "upgrade_refused"),
        ({}, ((b"Upgrade", b"websocket"),), "upgrade_refused"),
        ({}, ((b"Upgrade", b"h2c"),), "upgrade_refused"),
        ({b"Sec-WebSocket-Version": b"8"}, (), "websocket_version_refused"),
        ({b"Sec-WebSocket-Version": b"13, 8"}, (), "websocket_version_refused"),
        ({b"Sec-WebSocket-Version": b"013"}, (), "websocket_version_refused"),
        ({b"Sec-WebSocket-Version": None}, (), "websocket_version_refused"),
        ({}, ((b"Sec-WebSocket-Version", b"13"),), "websocket_version_refused"),
        ({b"Connection": b"keep-alive"}, (), "malformed_request"),
        ({b"Connection": None}, (), "malformed_request"),
        ({b"Sec-WebSocket-Key": None}, (), "malformed_request"),
        ({b"Sec-WebSocket-Key": b""}, (), "malformed_request"),
        ({b"Sec-WebSocket-Key": KEY[:-1]}, (), "malformed_request"),
        ({b"Sec-WebSocket-Key": KEY + b"="}, (), "malformed_request"),
        # These decode to 16 bytes, but not back to themselves.
        ({b"Sec-WebSocket-Key": KEY[:21] + b"R=="}, (), "malformed_request"),
        ({}, ((b"Sec-WebSocket-Key", KEY),), "malformed_request"),
        ({b"Content-Length": b"1"}, (), "malformed_request"),
        ({b"Transfer-Encoding": b"chunked"}, (), "malformed_request"),
    ],
    ids=repr,
)
def test_anything_else_is_no_handshake(
    changes: dict[bytes, bytes | None], more: tuple[tuple[bytes, bytes], ...], code: str
) -> None:
    refusal = asked(changes, *more)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_what_a_service_may_answer() -> None:
    assert problem({}) is None
    offer = Handshake(KEY, frozenset({b"chat"}), frozenset({b"permessage-deflate"}))
    agreed = {
        b"Sec-WebSocket-Protocol": b"chat",
        b"Sec-WebSocket-Extensions": b"permessage-deflate; server_no_context_takeover",
    }
    assert problem({**agreed}, offer=offer) is None


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({b"Upgrade": b"h2c"}, (), "does not switch to websocket"),
        ({b"Upgrade": None}, (), "does not switch to websocket"),
        ({}, ((b"Upgrade", b"h2c"),), "does not switch to websocket"),
        ({b"Connection": b"close"}, (), "Connection"),
        ({b"Connection": None}, (), "Connection"),
        ({b"Sec-WebSocket-Accept": None}, (), "Accept"),
        ({b"Sec-WebSocket-Accept": ACCEPT.lower()}, (), "Accept"),
        ({b"Sec-WebSocket-Accept": KEY}, (), "Accept"),
        ({}, ((b"Sec-WebSocket-Accept", ACCEPT),), "Accept"),
        ({b"Sec-WebSocket-Protocol": b"chat"}, (), "subprotocol"),
        ({b"Sec-WebSocket-Extensions": b"permessage-deflate"}, (), "extension"),
    ],
    ids=repr,
)
def test_any_other_answer_opens_nothing(
    changes: dict[bytes, bytes | None], more: tuple[tuple[bytes, bytes], ...], words: str
) -> None:
    found = problem(changes, *more)
    assert found is not None
    assert words in found


def test_of_several_subprotocols_one_is_spoken() -> None:
    offer = Handshake(KEY, frozenset({b"a", b"b"}), frozenset())
    assert problem({b"Sec-WebSocket-Protocol": b"a, b"}, offer=offer) is not None
    twice = ((b"Sec-WebSocket-Protocol", b"a"), (b"Sec-WebSocket-Protocol", b"b"))
    assert problem({}, *twice, offer=offer) is not None
