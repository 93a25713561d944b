"""The grammar of HTTP/1.1 heads (RFC 9110, 5; RFC 9112), in its strict reading.

Where the RFCs let a recipient be lenient (a bare LF, a folded line, white space before the
colon) two programs may read one message differently, so none of it is accepted. Two readers
must agree on each head: the expressions here, and llhttp through httptools.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httptools

HEAD_END: Final = b"\r\n\r\n"

FIELD_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
FIELD_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

_FIELDS: Final = re.compile(
    rb"(?:" + FIELD_NAME.pattern + rb":" + FIELD_VALUE.pattern + rb"\r\n)*+\r\n"
)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Malformed(ValueError):
    """Bytes that are no HTTP/1.1 message in its strict reading; the text quotes none of them."""


class Field(NamedTuple):
    """A header field: its name in lower case and as sent, its value without outer blanks."""

    key: bytes
    name: bytes
    value: bytes

    def line(self) -> bytes:
        """Return the field as a line of a head."""
        return b"%b: %b\r\n" % (self.name, self.value)


class Framing(NamedTuple):
    """How a message's body is delimited: chunked, by a length in bytes, or neither."""

    chunked: bool
    length: int | None


class _Collector:
    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        # What frames the body is taken as it stands: not everybody takes `chunked\t` for chunked.
        self.fields.append(Field(key, name, value if key in _FRAMING else value.strip(b" \t")))


def has_bare_line_feed(data: bytes) -> bool:
    """Tell whether a line ends in LF alone, so that to wait for its CRLF would be in vain."""
    return data.count(b"\n") != data.count(b"\r\n")  # a slow head is looked at for each byte


def read_fields(
    head: bytes,
    start: int,
    reader: type[httptools.HttpRequestParser | httptools.HttpResponseParser],
    limit: int,
) -> tuple[Field, ...]:
    """Return the fields of a complete head, whose field lines begin at `start`.

    Raise `Malformed` if either reader refuses them, if the two disagree on their number, or
    if there are more than `limit`.
    """
    count = head.count(b"\r\n", start) - 1
    if count > limit:
        raise Malformed(f"there are {count} header fields; at most {limit} are accepted")
    if not _FIELDS.fullmatch(head, start):
        raise Malformed(
            "a header line is not `Name: value` followed by CRLF, or holds a control character"
        )
    collector = _Collector()
    try:
        reader(collector).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the caller sees the Upgrade field
    except httptools.HttpParserError as error:
        raise Malformed(f"the header fields contradict each other: {error}") from None
    if len(collector.fields) != count:
        raise Malformed("the header fields can be read in more than one way")
    return tuple(collector.fields)


def read_framing(fields: tuple[Field, ...]) -> Framing:
    """Return how the body is delimited; raise `Malformed` unless there is one way to read it.

    `Transfer-Encoding` must be exactly `chunked`, once, without a `Content-Length`, which must
    be one plain number (RFC 9112, 6.1 and 6.3).
    """
    lengths = [field.value for field in fields if field.key == b"content-length"]
    codings = [field.value for field in fields if field.key == b"transfer-encoding"]
    if codings and lengths:
        raise Malformed("it has both Transfer-Encoding and Content-Length")
    if codings:
        if codings != [b"chunked"]:
            raise Malformed("Transfer-Encoding is not exactly `chunked`, once")
        return Framing(chunked=True, length=None)
    if not lengths:
        return Framing(chunked=False, length=None)
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("Content-Length is not one plain number")
    return Framing(chunked=False, length=int(lengths[0]))


def connection_options(fields: tuple[Field, ...]) -> frozenset[bytes]:
    """Return what the Connection fields name, in lower case (RFC 9110, 7.6.1)."""
    return frozenset(
        option.strip(b" \t").lower()
        for field in fields
        if field.key == b"connection"
        for option in field.value.split(b",")
    )
