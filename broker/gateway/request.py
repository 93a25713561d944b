"""A request head, read once and strictly.

The request line differs from request to request, the header fields of one client hardly
ever do. So the line is read each time, and what the fields mean is remembered by their bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import httptools

from broker.gateway.grammar import Malformed, connection_options, read_fields, read_framing
from broker.gateway.problems import Refusal, malformed, too_large
from broker.policy.rules import METHODS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from broker.gateway.grammar import Field
    from broker.gateway.limits import GatewayLimits

SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that change nothing upstream (RFC 9110, 9.2.1)."""

IDEMPOTENT: Final = SAFE | {b"PUT", b"DELETE"}
"""Methods that may be sent again (RFC 9110, 9.2.2)."""

_METHODS: Final = frozenset(method.encode() for method in METHODS)

_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_ABSOLUTE: Final = re.compile(rb"http://([^/?#]+)(/.*)", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

_REMEMBERED_BLOCKS: Final = 512
_REMEMBERED_BYTES: Final = 4096


class RequestFields:
    """What one block of header fields means, shared by the requests that repeat its bytes.

    `closes` is true where the agent will not use the connection again and `upgrades` where it
    asks for another protocol; `expectation` is the value of Expect, in lower case. `derived`
    keeps what authorisation and injection work out from the fields alone.
    """

    __slots__ = (
        "chunked",
        "closes",
        "derived",
        "expectation",
        "fields",
        "host",
        "length",
        "options",
        "upgrades",
    )

    def __init__(self, fields: tuple[Field, ...]) -> None:
        hosts = [field.value for field in fields if field.key == b"host"]
        if len(hosts) != 1:
            raise Malformed(f"it has {len(hosts)} Host fields where exactly one is expected")
        if not _HOST.fullmatch(hosts[0]):
            raise Malformed("Host is not a host name or address with an optional port")
        framing = read_framing(fields)
        self.fields = fields
        self.host = hosts[0]
        self.chunked = framing.chunked
        self.length = framing.length
        self.options = connection_options(fields)
        self.closes = b"close" in self.options
        self.upgrades = any(field.key == b"upgrade" for field in fields)
        expectations = [field.value.lower() for field in fields if field.key == b"expect"]
        self.expectation = b", ".join(expectations) or None
        self.derived: dict[Hashable, object] = {}

    @property
    def has_body(self) -> bool:
        """Tell whether body bytes follow the head."""
        return self.chunked or bool(self.length)


class Request(NamedTuple):
    """A request head that can be read in one way only; `path` and `query` are raw bytes.

    `query` is None where the target has no question mark.
    """

    method: bytes
    path: bytes
    query: bytes | None
    fields: RequestFields


class RequestReader:
    """Read request heads within the limits."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._remembered: dict[bytes, RequestFields] = {}

    def read(self, head: bytes) -> Request | Refusal:
        """Read a complete head, its empty line included."""
        start = head.find(b"\r\n") + 2
        line = _LINE.fullmatch(head, 0, start - 2)
        if line is None:
            return malformed("the request line is not `METHOD target HTTP/1.1`")
        method, target, version = line.groups()
        if version != b"1.1":
            return Refusal("version_refused", "send the request as HTTP/1.1", final=True)
        if len(target) > self._limits.target_bytes:
            return Refusal(
                "target_too_long",
                f"the target has {len(target)} bytes; at most {self._limits.target_bytes} are read",
                final=True,
            )
        if method not in _METHODS:
            return Refusal(
                "method_refused",
                "a method is an upper-case word that policies may name, such as GET or POST; "
                "TRACE and CONNECT never pass",
                final=True,
            )
        try:
            fields = self._fields(head, start)
        except Malformed as error:
            return malformed(str(error))
        return self._refusal(fields) or _request(method, target, fields)

    def forget(self) -> None:
        """Drop what is remembered, with all that was derived from it."""
        self._remembered.clear()

    def _refusal(self, fields: RequestFields) -> Refusal | None:
        if fields.expectation not in {None, b"100-continue"}:
            return Refusal("expectation_failed", "only `Expect: 100-continue` is known", final=True)
        if fields.length is not None and fields.length > self._limits.body_bytes:
            return too_large(self._limits.body_bytes)
        return None

    def _fields(self, head: bytes, start: int) -> RequestFields:
        block = head[start:]
        known = self._remembered.get(block)
        if known is not None:
            return known
        fields = RequestFields(
            read_fields(head, start, httptools.HttpRequestParser, self._limits.head_fields)
        )
        if len(block) <= _REMEMBERED_BYTES:
            if len(self._remembered) >= _REMEMBERED_BLOCKS:
                self._remembered.clear()
            self._remembered[block] = fields
        return fields


def _request(method: bytes, target: bytes, fields: RequestFields) -> Request | Refusal:
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            return malformed("the target is neither a path nor an http URL with one")
        if absolute[1].lower() != fields.host.lower():
            return malformed("the authority in the target is not the one in Host")
        target = absolute[2]
    if b"#" in target:
        return malformed("the target has a fragment")
    path, mark, query = target.partition(b"?")
    return Request(method, path, query if mark else None, fields)
