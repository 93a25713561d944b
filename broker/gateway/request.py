"""A request head, read once and strictly.

Agents repeat themselves. What a head means is remembered for as long as the next one on the
same connection repeats its bytes; and as the request line differs more often than the header
fields that follow it, what the fields mean is remembered by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httptools

from broker.gateway.grammar import (
    HEAD_END,
    Malformed,
    connection_options,
    has_bare_line_feed,
    read_fields,
    read_framing,
)
from broker.gateway.problems import (
    LOOP,
    Refusal,
    head_too_large,
    malformed,
    too_large,
    too_many_fields,
)
from broker.gateway.trailers import declared, takes_trailers
from broker.gateway.websocket import read_handshake
from broker.policy.rules import METHODS

if TYPE_CHECKING:
    from broker.gateway.authorize import Admission
    from broker.gateway.grammar import Field
    from broker.gateway.limits import GatewayLimits

SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that change nothing upstream (RFC 9110, 9.2.1)."""

IDEMPOTENT: Final = SAFE | {b"PUT", b"DELETE"}
"""Methods that may be sent again (RFC 9110, 9.2.2)."""

_METHODS: Final = frozenset(method.encode() for method in METHODS)

_LINE: Final = re.compile(
    # method, then path and query as they stand; without `#`, which neither can hold
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-\"$->@-~]*)(?:\?([!-\"$-~]*))? HTTP/1\.1\r\n"
).match
_OTHER_LINE: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (?:(?i:http)://([!-\"$-.0->@-~]+)(?=/))?([!-~]+)"
    rb" HTTP/([0-9]\.[0-9])\r\n"
).match
_METHOD_REFUSED: Final = Refusal(
    "method_refused",
    "a method is an upper-case word that policies may name, such as GET or POST; "
    "TRACE and CONNECT never pass",
    final=True,
)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class RequestFields:
    """What one block of header fields means, for every request on a connection that repeats it.

    `block` is the bytes themselves. `refusal` is why no request with these fields is served, if
    there is a reason. `closes` is true where the agent will not use the connection again,
    `expects` where it waits for 100 (Continue), `takes_trailers` where it takes trailers of a
    response; `trailers` are those it declares itself. `handshake` is what it asks for where it
    wants another protocol, or why that cannot be.
    `derived` keeps what authorisation and injection work out from the fields alone.
    """

    __slots__ = (
        "block",
        "chunked",
        "closes",
        "derived",
        "expects",
        "fields",
        "handshake",
        "has_body",
        "host",
        "length",
        "options",
        "refusal",
        "takes_trailers",
        "trailers",
    )

    def __init__(
        self, block: bytes, fields: tuple[Field, ...], body_limit: int, pseudonym: bytes = b""
    ) -> None:
        hosts = [field.value for field in fields if field.key == b"host"]
        if len(hosts) != 1:
            raise Malformed(f"it has {len(hosts)} Host fields where exactly one is expected")
        if not _HOST.fullmatch(hosts[0]):
            raise Malformed("Host is not a host name or address with an optional port")
        framing = read_framing(fields)
        expected = {field.value.lower() for field in fields if field.key == b"expect"}
        self.block = block
        self.fields = fields
        self.host = hosts[0]
        self.chunked = framing.chunked
        self.length = framing.length
        self.has_body = framing.chunked or bool(framing.length)
        self.options = connection_options(fields)
        self.closes = b"close" in self.options
        upgrades = any(field.key == b"upgrade" for field in fields)
        self.handshake = read_handshake(fields, self.options, framing) if upgrades else None
        self.expects = bool(expected)
        self.takes_trailers = takes_trailers(fields)
        self.trailers = declared(fields) if framing.chunked else frozenset()
        self.refusal: Refusal | None = None
        if expected - {b"100-continue"}:
            detail = "only `Expect: 100-continue` is known"
            self.refusal = Refusal("expectation_failed", detail, final=True)
        elif framing.length is not None and framing.length > body_limit:
            self.refusal = too_large(body_limit)
        elif pseudonym and any(f.key == b"via" and pseudonym in f.value for f in fields):
            self.refusal = LOOP
        self.derived: dict[Any, Any] = {}

    def reframed(self, length: int) -> RequestFields:
        """Return the same fields for a body that is here, whole: of `length` bytes."""
        if not self.chunked and not self.expects:
            return self
        # Anew, for what is compiled cannot be copied.
        fields = RequestFields(self.block, self.fields, length)
        fields.refusal = self.refusal
        fields.expects = False
        fields.chunked, fields.length, fields.has_body = False, length, length > 0
        fields.trailers = frozenset()
        return fields


@dataclass(slots=True)  # not frozen, which would double the cost of making one
class Request:
    """A request head that can be read in one way only; `path` and `query` are raw bytes.

    `query` is None where the target has no question mark. `size` is the head's in bytes.
    `admission` is that of the last request with the same head, if it was allowed.
    """

    method: bytes
    path: bytes
    query: bytes | None
    fields: RequestFields
    size: int
    admission: Admission | None = None


class RequestReader:
    """Read the request heads of one connection within the limits.

    `pseudonym` is the gateway's own in `Via`: what has it there has been here before.
    """

    def __init__(self, limits: GatewayLimits, pseudonym: bytes = b"") -> None:
        self._limits = limits
        self._pseudonym = pseudonym
        self._fields: RequestFields | None = None
        self._head = b""
        self._request: Request | None = None

    def forget(self) -> None:
        """Remember nothing of the last request: whoever is refused is worth no memory."""
        self._fields = self._request = None
        self._head = b""

    def read(self, data: bytes) -> Request | Refusal | None:
        """Read the head that `data` begins with; None if it is not complete yet."""
        if self._request is not None and data.startswith(self._head):
            return self._request
        line = _LINE(data)
        fields = self._fields
        if line is None or fields is None or not data.startswith(fields.block, line.end()):
            return self._read_anew(data, line)
        method, path, query = line.groups()
        start = line.end()
        if method not in _METHODS or fields.refusal or start > self._limits.target_bytes:
            return self._refusal(method, fields)
        size = start + len(fields.block)
        self._head = data[:size]
        self._request = Request(method, path, query, fields, size)
        return self._request

    def _read_anew(self, data: bytes, line: re.Match[bytes] | None) -> Request | Refusal | None:
        end = data.find(HEAD_END) + len(HEAD_END)
        if end < len(HEAD_END):
            return self._unfinished(data)
        excess = self._excess(data, end)
        if excess is not None:
            return excess
        if line is None:
            return self._read_other(data[:end])
        if line[1] not in _METHODS:
            return _METHOD_REFUSED
        try:
            self._fields = self._read_fields(data[:end], line.end())
        except Malformed as error:
            return malformed(str(error))
        return self.read(data)

    def _excess(self, data: bytes, end: int) -> Refusal | None:
        limits = self._limits
        if end > limits.head_bytes:
            return head_too_large(limits.head_bytes)
        # The first line, and the one that ends the head, are no fields.
        if data.count(b"\r\n", 0, end) > limits.head_fields + 2:
            return too_many_fields(limits.head_fields)
        return None

    def _read_fields(self, head: bytes, start: int) -> RequestFields:
        limits = self._limits
        fields = read_fields(head, start, httptools.HttpRequestParser, limits.head_fields)
        return RequestFields(head[start:], fields, limits.body_bytes, self._pseudonym)

    def _unfinished(self, data: bytes) -> Refusal | None:
        if not data[:1].isalpha():
            return malformed("it does not begin with a method")
        if has_bare_line_feed(data):
            return malformed("a line of the head ends in LF alone")
        if len(data) > self._limits.head_bytes:
            return head_too_large(self._limits.head_bytes)
        return None

    def _refusal(self, method: bytes, fields: RequestFields) -> Refusal:
        if method not in _METHODS:
            return _METHOD_REFUSED
        limit = self._limits.target_bytes
        return fields.refusal or Refusal(
            "target_too_long", f"at most {limit} bytes of request line are read", final=True
        )

    def _read_other(self, head: bytes) -> Request | Refusal | None:
        """Read what is not in the usual form: an absolute target, or no request at all."""
        line = _OTHER_LINE(head)
        if line is None:
            return malformed("the request line is not `METHOD target HTTP/1.1`")
        method, authority, target, version = line.groups()
        if version != b"1.1":
            return Refusal("version_refused", "send the request as HTTP/1.1", final=True)
        if method in {b"CONNECT", b"TRACE"}:
            return _METHOD_REFUSED
        if authority is None or b"#" in target:
            return malformed("the target is neither a path nor an http URL with one")
        request = self.read(b"%b %b HTTP/1.1\r\n%b" % (method, target, head[line.end() :]))
        self._request = None  # it was read from another spelling of the head
        if isinstance(request, Request):
            if request.fields.host.lower() != authority.lower():
                return malformed("the authority in the target is not the one in Host")
            request.size = len(head)
        return request
