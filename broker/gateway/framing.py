"""Find the end of a message body, and write bodies anew (RFC 9112, 6 and 7).

What leaves the gateway is framed by the gateway: chunk extensions of the sender are read strictly
and dropped, so two readers behind it cannot disagree on where a body ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from broker.gateway.grammar import FIELD_NAME, FIELD_VALUE, Malformed

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST_CHUNK: Final = b"0\r\n\r\n"

_SIZE_LINE: Final = 17
"""The most bytes that the line may have that begins a chunk, if it says no more than its size."""

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(FIELD_NAME.pattern + rb":" + FIELD_VALUE.pattern)
_LINE_BYTES: Final = 4096
_TRAILER_LINES: Final = 64
_TRAILER_BYTES: Final = 16 << 10


class Body(Protocol):
    """Turn the bytes of a connection into those of one body."""

    done: bool
    rest: bytes

    @property
    def trailers(self) -> Sequence[bytes]:
        """The lines of the trailer section, once the body is done."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in `data`.

        Sets `done` at the body's end and `rest` to what follows it. Raises `Malformed`.
        """
        ...


class LengthBody:
    """A body of a known number of bytes, of which `left` are still to come."""

    __slots__ = ("done", "left", "rest")
    trailers = ()

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in `data`."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        self.done = True
        if size > self.left:
            data, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        return data


class UntilCloseBody:
    """A body that ends with its connection."""

    __slots__ = ("done", "rest")
    trailers = ()

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return `data`: all of it is body."""
        return data


class ChunkedBody:
    """A chunked body (RFC 9112, 7.1)."""

    __slots__ = ("_buffer", "_left", "_trailing", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the current chunk and the CRLF after it
        self._trailing = False
        self.trailers: tuple[bytes, ...] = ()
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the chunks' content in `data`; raise `Malformed` for anything unclear."""
        if not (self._left or self._buffer or self._trailing):
            whole = _whole_chunk(data)
            if whole:
                return whole
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        content: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._left:
                taken = self._chunk(data, position, content)
                if not taken:
                    break
                position += taken
                continue
            end = data.find(b"\r\n", position, position + _LINE_BYTES)
            if end < 0:
                if size - position >= _LINE_BYTES:
                    raise Malformed("a line between chunks is too long")
                break
            self._line(data[position:end])
            position = end + 2
        if self.done:
            self.rest = data[position:]
        else:
            self._buffer = data[position:]
        return content[0] if len(content) == 1 else b"".join(content)

    def _chunk(self, data: bytes, position: int, content: list[bytes]) -> int:
        """Take from the current chunk; return how many bytes, 0 if its CRLF is cut."""
        available = len(data) - position
        if available < self._left:
            taken = min(available, self._left - 2)
            if taken:
                content.append(data[position : position + taken])
                self._left -= taken
            return taken
        taken = self._left
        if data[position + taken - 2 : position + taken] != b"\r\n":
            raise Malformed("a chunk is not followed by CRLF")
        if taken > 2:  # noqa: PLR2004 - more than the CRLF
            content.append(data[position : position + taken - 2])
        self._left = 0
        return taken

    def _line(self, line: bytes) -> None:
        if not self._trailing:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise Malformed("a chunk size is not a plain hexadecimal number")
            size = int(match[1], 16)
            if size:
                self._left = size + 2
            else:
                self._trailing = True
            return
        if not line:
            self.done = True
            return
        self.trailers += (line,)
        too_long = (
            len(self.trailers) > _TRAILER_LINES or sum(map(len, self.trailers)) > _TRAILER_BYTES
        )
        if too_long or not _TRAILER.fullmatch(line):
            raise Malformed("the trailer section is too long or not made of header fields")


def _whole_chunk(data: bytes) -> bytes:
    """Return the content of `data` if it is one chunk, as an event mostly comes; nothing if not.

    Nothing, too, if its size is written otherwise than most do: in lower case and no longer than
    it has to be.
    """
    start, end = data.find(b"\n", 0, _SIZE_LINE) + 1, len(data) - 2
    if end > start and data.startswith(b"%x\r\n" % (end - start)) and data.endswith(b"\r\n"):
        return data[start:end]
    return b""


def chunk(content: bytes) -> bytes:
    """Return `content`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)
