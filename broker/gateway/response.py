"""A response head from an upstream, read strictly, and the field lines an agent may see."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import httptools

from broker.gateway.framing import ChunkedBody, LengthBody, UntilCloseBody
from broker.gateway.grammar import (
    HEAD_END,
    Malformed,
    connection_options,
    has_bare_line_feed,
    read_fields,
    read_framing,
)
from broker.gateway.trailers import LEADING, declared
from broker.gateway.websocket import SWITCHING

if TYPE_CHECKING:
    from broker.gateway.framing import Body
    from broker.gateway.grammar import Field
    from broker.gateway.limits import GatewayLimits
    from broker.gateway.scrub import Scrubber

_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")

_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection"}
    | {b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_MISLEADING: Final = frozenset({b"alt-svc", b"broker-error"})
"""`Alt-Svc` would send the agent past the gateway; `Broker-Error` is the broker's own word."""

_OF_THE_UPSTREAM: Final = LEADING | {b"set-cookie"}
"""Fields that speak of the upstream's address or sessions, and have to be translated."""

_UNLIKE_ASCII: Final = re.compile(
    rb";[ \t]*charset[ \t]*=[ \t]*[\"']?"
    rb"(?:utf-?(?:7|16|32)|(?:cs)?(?:ucs|unicode|iso-10646)|ebcdic|(?:ibm|cp)-?0?(?:37|500|10\d\d))",
    re.IGNORECASE,
)
"""The beginning of a charset that an agent could ask for, to have an echo past recognition."""

_PART: Final = "is only a part, although all was asked for"
_PARTIAL: Final = 206
_OK: Final = 200
_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


class ResponseHead:
    """A response head that can be read in one way only.

    `start` is what the agent may see of it as it is: status line, fields, the length of a body
    that has one; `translated` are the fields to translate first. `ready` is the whole head for
    an agent whose connection goes on, where that is the same for every request. `interim` is
    true for 1xx and `persistent` where the upstream keeps its connection open. `unsearchable`
    says why the body cannot be searched for a credential, if there is a reason; `clean_for` is
    the scrubber that has found none in `ready`. `options` are what Connection names, `switching`
    the fields of an answer that changes the protocol (101), `trailers` the names of what may
    follow a chunked body. `size` is the head's in bytes.
    """

    __slots__ = (
        "chunked",
        "clean_for",
        "interim",
        "length",
        "options",
        "persistent",
        "ready",
        "size",
        "start",
        "status",
        "switching",
        "trailers",
        "translated",
        "unsearchable",
    )

    def __init__(self, head: bytes, limit: int) -> None:
        start = head.find(b"\r\n") + 2
        line = _LINE.fullmatch(head, 0, start - 2)
        if line is None:
            raise Malformed("the status line is not `HTTP/1.x NNN reason`")
        fields = read_fields(head, start, httptools.HttpResponseParser, limit)
        self.size = len(head)
        self.status = int(line[2])
        self.interim = self.status < _OK
        framing = read_framing(fields)
        if self.interim and (framing.chunked or framing.length is not None):
            raise Malformed("an interim answer (1xx) says that it has a body")
        if framing.chunked and line[1] == b"0":
            raise Malformed("HTTP/1.0 knows no Transfer-Encoding")
        options = self.options = connection_options(fields)
        self.switching = fields if self.status == SWITCHING else ()
        dropped = options | _HOP_BY_HOP | _MISLEADING | _OF_THE_UPSTREAM
        self.chunked = framing.chunked
        self.length = framing.length
        # A 204 that speaks of a body may have one, which would be in the way of the next answer.
        odd = self.status == _NO_CONTENT and (framing.chunked or bool(framing.length))
        self.persistent = line[1] == b"1" and b"close" not in options and not odd
        lines = [b"HTTP/1.1 %b %b\r\n" % (line[2], line[3] or b"")]
        lines += [field.line() for field in fields if field.key not in dropped]
        if framing.length is not None and self.status != _NO_CONTENT:
            lines.append(b"Content-Length: %d\r\n" % framing.length)
        self.start = b"".join(lines)
        self.translated = tuple(
            field for field in fields if field.key in _OF_THE_UPSTREAM - options
        )
        self.trailers = (declared(fields) - options) if framing.chunked else frozenset()
        self.clean_for: Scrubber | None = None
        self.unsearchable = _unsearchable(fields, self.status)
        plain = framing.length is not None and not self.translated
        self.ready = self.start + b"\r\n" if plain else None

    def has_body(self, method: bytes) -> bool:
        """Tell whether there is a body to a request with `method` (RFC 9112, 6.3)."""
        return method != b"HEAD" and self.status not in _BODILESS

    def unfit_to_search(self, method: bytes, *, ranges: bool) -> str | None:
        """Return why a body that there is cannot be searched, if there is a reason.

        `ranges` says that parts may be asked for, as no part could hold a part of the credential.
        """
        reason = self.unsearchable
        if reason is None or (ranges and reason is _PART):
            return None
        return reason if self.has_body(method) and self.length != 0 else None

    def body(self) -> Body:
        """Return what reads the body, if there is one."""
        if self.chunked:
            return ChunkedBody()
        return UntilCloseBody() if self.length is None else LengthBody(self.length)


def _unsearchable(fields: tuple[Field, ...], status: int) -> str | None:
    codings = {field.value.lower() for field in fields if field.key == b"content-encoding"}
    if codings - {b"", b"identity"}:
        return "is compressed, although it was asked for as it is"
    if any(field.key == b"content-type" and _UNLIKE_ASCII.search(field.value) for field in fields):
        return "is in a charset in which ASCII is written otherwise"
    return _PART if status == _PARTIAL else None


class ResponseReader:
    """Read the response heads of one connection within the limits.

    The last one is remembered for as long as the next repeats its bytes.
    """

    __slots__ = ("_last", "_last_bytes", "_limits")

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._last_bytes = b""
        self._last: ResponseHead | None = None

    def read(self, data: bytes) -> ResponseHead | None:
        """Read the head that `data` begins with; None if it is not complete yet.

        Raises `Malformed`.
        """
        if self._last is not None and data.startswith(self._last_bytes):
            return self._last
        end = data.find(HEAD_END) + len(HEAD_END)
        if end < len(HEAD_END):
            if has_bare_line_feed(data):
                raise Malformed("a line of its head ends in LF alone")
            end = len(data)
        if end > self._limits.response_head_bytes:
            raise Malformed(f"its head is over {self._limits.response_head_bytes} bytes")
        if not data.endswith(HEAD_END, 0, end):
            return None
        self._last_bytes = data[:end]
        self._last = ResponseHead(self._last_bytes, self._limits.response_head_fields)
        return self._last
