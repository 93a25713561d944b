"""The opening handshake of a websocket (RFC 6455, 4), held to the letter on both sides.

Two programs that disagree on whether a connection has changed its protocol read what follows in
two ways, and what is taken for frames by one is a request to the other. So there is a tunnel only
where the agent asked for exactly this, and the service agreed to exactly that.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.gateway.problems import Refusal, malformed

if TYPE_CHECKING:
    from broker.gateway.grammar import Field, Framing

SWITCHING: Final = 101
EXTENSIONS: Final = b"sec-websocket-extensions"
REQUEST_LINES: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""What asks the service for a websocket, beside the agent's own `Sec-WebSocket-` fields."""

VERSION: Final = b"13"

_PROTOCOL: Final = b"websocket"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_ANOTHER_PROTOCOL: Final = Refusal(
    "upgrade_refused",
    "the only protocol that a connection can change to is websocket (RFC 6455); h2c is none",
)
_ANOTHER_VERSION: Final = Refusal(
    "websocket_version_refused", f"only version {VERSION.decode()} of the protocol is spoken here"
)


class Handshake(NamedTuple):
    """What an agent asks for: its key, and the subprotocols and extensions that it offers."""

    key: bytes
    protocols: frozenset[bytes]
    extensions: frozenset[bytes]


def read_handshake(
    fields: tuple[Field, ...], options: frozenset[bytes], framing: Framing
) -> Handshake | Refusal:
    """Return what the fields of a GET request with `Upgrade` ask for, or why that cannot be.

    `options` are what Connection names (RFC 6455, 4.2.1).
    """
    if [value.lower() for value in _values(fields, b"upgrade")] != [_PROTOCOL]:
        return _ANOTHER_PROTOCOL
    if _values(fields, b"sec-websocket-version") != [VERSION]:
        return _ANOTHER_VERSION
    keys = _values(fields, b"sec-websocket-key")
    problem = None
    if b"upgrade" not in options:
        problem = "it has Upgrade, and Connection does not name it"
    elif framing.chunked or framing.length:
        problem = "a websocket's handshake has a body"
    elif len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        problem = "Sec-WebSocket-Key is not 16 bytes in base64, once"
    if problem is not None:
        return malformed(problem)
    offered = _values(fields, EXTENSIONS)
    return Handshake(
        key=keys[0],
        protocols=frozenset(_listed(_values(fields, b"sec-websocket-protocol"))),
        extensions=frozenset(_extension(one) for one in _listed(offered)),
    )


def why_not_switched(
    asked: Handshake, fields: tuple[Field, ...], options: frozenset[bytes]
) -> str | None:
    """Return why an answer with status 101 is not the one to `asked`, or None (RFC 6455, 4.1)."""
    if [value.lower() for value in _values(fields, b"upgrade")] != [_PROTOCOL]:
        return "it does not switch to websocket"
    if b"upgrade" not in options:
        return "Connection does not name Upgrade"
    digest = hashlib.sha1(asked.key + _GUID, usedforsecurity=False).digest()
    if _values(fields, b"sec-websocket-accept") != [base64.b64encode(digest)]:
        return "Sec-WebSocket-Accept is not that of the request's key"
    extensions = {_extension(one) for one in _listed(_values(fields, EXTENSIONS))}
    if extensions - asked.extensions:
        return "it uses an extension that was not offered"
    protocols = _values(fields, b"sec-websocket-protocol")
    if len(protocols) > 1 or set(protocols) - asked.protocols:
        return "it speaks a subprotocol that was not offered"
    return None


def _values(fields: tuple[Field, ...], key: bytes) -> list[bytes]:
    return [field.value for field in fields if field.key == key]


def _listed(values: list[bytes]) -> list[bytes]:
    return [one.strip(b" \t") for value in values for one in value.split(b",")]


def _extension(offer: bytes) -> bytes:
    return offer.partition(b";")[0].strip(b" \t")
