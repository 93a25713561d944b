"""A response head from an upstream, read strictly, and the field lines an agent may see."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import httptools

from broker.gateway.framing import ChunkedBody, LengthBody, UntilCloseBody
from broker.gateway.grammar import Malformed, connection_options, read_fields, read_framing

if TYPE_CHECKING:
    from broker.gateway.framing import Body
    from broker.gateway.limits import GatewayLimits

_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_MISLEADING: Final = frozenset({b"alt-svc", b"broker-error"})
"""`Alt-Svc` would send the agent past the gateway; `Broker-Error` is the broker's own word."""

_OF_THE_UPSTREAM: Final = frozenset({b"content-location", b"location", b"set-cookie"})
"""Fields that speak of the upstream's address or sessions, and have to be translated."""

_SWITCHING: Final = 101
_OK: Final = 200
_BODILESS: Final = frozenset({204, 304})

_REMEMBERED_HEADS: Final = 256
_REMEMBERED_BYTES: Final = 4096


class ResponseHead:
    """A response head that can be read in one way only.

    `line` is the status line for the agent and `lines` the field lines that it may see as they
    are; `translated` are the fields to translate first. `interim` is true for 1xx and
    `persistent` where the upstream keeps its connection open.
    """

    __slots__ = (
        "chunked",
        "interim",
        "length",
        "line",
        "lines",
        "persistent",
        "status",
        "translated",
    )

    def __init__(self, head: bytes, limit: int) -> None:
        start = head.find(b"\r\n") + 2
        line = _LINE.fullmatch(head, 0, start - 2)
        if line is None:
            raise Malformed("the status line is not `HTTP/1.x NNN reason`")
        fields = read_fields(head, start, httptools.HttpResponseParser, limit)
        self.status = int(line[2])
        self.interim = self.status < _OK
        if self.status == _SWITCHING:
            raise Malformed("it switches protocols, which nobody asked for")
        framing = read_framing(fields)
        if framing.chunked and line[1] == b"0":
            raise Malformed("HTTP/1.0 knows no Transfer-Encoding")
        options = connection_options(fields)
        dropped = options | _HOP_BY_HOP | _MISLEADING | _OF_THE_UPSTREAM
        self.chunked = framing.chunked
        self.length = framing.length
        self.persistent = line[1] == b"1" and b"close" not in options
        self.line = b"HTTP/1.1 %b %b\r\n" % (line[2], line[3] or b"")
        self.lines = b"".join(field.line() for field in fields if field.key not in dropped)
        self.translated = tuple(
            field for field in fields if field.key in _OF_THE_UPSTREAM - options
        )

    def body(self, method: bytes) -> Body | None:
        """Return what reads the body, or None where there is none (RFC 9112, 6.3)."""
        if method == b"HEAD" or self.status in _BODILESS:
            return None
        if self.chunked:
            return ChunkedBody()
        if self.length is not None:
            return LengthBody(self.length)
        return UntilCloseBody()


class ResponseReader:
    """Read response heads within the limits; those that repeat byte for byte are remembered."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limit = limits.response_head_fields
        self._remembered: dict[bytes, ResponseHead] = {}

    def read(self, head: bytes) -> ResponseHead:
        """Read a complete head, its empty line included; raise `Malformed`."""
        known = self._remembered.get(head)
        if known is not None:
            return known
        response = ResponseHead(head, self._limit)
        if len(head) <= _REMEMBERED_BYTES:
            if len(self._remembered) >= _REMEMBERED_HEADS:
                self._remembered.clear()
            self._remembered[head] = response
        return response
