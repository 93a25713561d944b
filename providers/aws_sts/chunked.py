"""Bodies that are signed in chunks (S3's `aws-chunked`), signed anew while they pass.

A client that signs so has signed with a key of its own, which opens nothing. Its chunks are
read strictly, their signatures dropped, and the content is cut and signed again, each chunk
chained to the one before and the first to the request's own signature (AWS, "Signature
calculations for the Authorization header: transferring payload in multiple chunks").
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from providers.aws_sts.sigv4 import EMPTY
from providers.signing import Unsignable

if TYPE_CHECKING:
    from providers.aws_sts.sigv4 import Moment, SigV4

CHUNK: Final = 64 << 10
"""Bytes of content in a chunk; S3 wants at least 8 KiB in all but the last."""

CHECKSUMS: Final = {
    b"x-amz-checksum-crc32": 8,
    b"x-amz-checksum-crc32c": 8,
    b"x-amz-checksum-crc64nvme": 12,
    b"x-amz-checksum-sha1": 28,
    b"x-amz-checksum-sha256": 44,
}
"""The trailers that S3 knows, with the length of their values."""

_LONGEST_LINE: Final = 512
_HEAD: Final = re.compile(rb"([0-9A-Fa-f]{1,12})(?:;chunk-signature=[0-9a-f]{64})?")
_TRAILER: Final = re.compile(rb"([A-Za-z0-9-]{1,64}):[ ]?([!-~]{1,200})")
_SIGNATURE: Final = b"x-amz-trailer-signature"
_MARK: Final = b";chunk-signature="
_SIGNATURE_SIZE: Final = 64


class Unchunked:
    """Read an `aws-chunked` body: its content, and its trailer once it is `done`.

    Raises `Unsignable` for anything that could be read in two ways.
    """

    __slots__ = ("_buffer", "_left", "_trailing", "done", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the current chunk and the CRLF after it
        self._trailing = False
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`."""
        data = self._buffer + data
        content: list[bytes] = []
        position = 0
        while position < len(data):
            if self.done:
                raise Unsignable("the aws-chunked body goes on after its end")
            if self._left:
                taken = self._chunk(data, position, content)
                if not taken:
                    break
                position += taken
                continue
            end = data.find(b"\r\n", position, position + _LONGEST_LINE)
            if end < 0:
                if len(data) - position >= _LONGEST_LINE:
                    raise Unsignable("a line of the aws-chunked body is too long")
                break
            self._line(data[position:end])
            position = end + 2
        self._buffer = data[position:]
        return b"".join(content)

    def _chunk(self, data: bytes, position: int, content: list[bytes]) -> int:
        available = len(data) - position
        if available < self._left:
            taken = min(available, self._left - 2)
            content.append(data[position : position + taken])
            self._left -= taken
            return taken
        taken = self._left
        if data[position + taken - 2 : position + taken] != b"\r\n":
            raise Unsignable("a chunk of the aws-chunked body is not followed by CRLF")
        content.append(data[position : position + taken - 2])
        self._left = 0
        return taken

    def _line(self, line: bytes) -> None:
        if not self._trailing:
            match = _HEAD.fullmatch(line)
            if match is None:
                raise Unsignable("a chunk of the aws-chunked body does not begin with its size")
            size = int(match[1], 16)
            self._left = size + 2 if size else 0
            self._trailing = not size
        elif line:
            match = _TRAILER.fullmatch(line)
            if match is None or len(self.trailers) > 1:
                raise Unsignable("the trailer of the aws-chunked body is not one checksum")
            self.trailers.append((match[1].lower(), match[2]))
        else:
            self.done = True


class Rechunked:
    """Sign a body of `size` bytes in chunks (`providers.signing.BodyCoder`).

    `seed` is the request's own signature. `trailer` names the checksum that follows the
    content, if one does.
    """

    def __init__(
        self, signer: SigV4, at: Moment, seed: bytes, size: int, trailer: bytes | None
    ) -> None:
        self._signer: Final = signer
        self._at: Final = at
        self._last = seed
        self._size: Final = size
        self._trailer: Final = trailer
        self._reader: Final = Unchunked()
        self._waiting = b""
        self._taken = 0
        self._length: Final = signed_length(size, trailer)

    @property
    def length(self) -> int:
        """How many bytes the signed body has in all."""
        return self._length

    def add(self, content: bytes) -> bytes:
        """Return the chunks that are full by now."""
        plain = self._reader.feed(content)
        self._taken += len(plain)
        if self._taken > self._size:
            raise Unsignable("the body is longer than x-amz-decoded-content-length says")
        waiting = self._waiting + plain
        whole = len(waiting) - len(waiting) % CHUNK
        self._waiting = waiting[whole:]
        return b"".join(
            [self._signed(waiting[start : start + CHUNK]) for start in range(0, whole, CHUNK)]
        )

    def end(self) -> bytes:
        """Return the last chunks, and the trailer."""
        if not self._reader.done:
            raise Unsignable("the aws-chunked body ends before its last chunk")
        if self._taken != self._size:
            raise Unsignable("the body is shorter than x-amz-decoded-content-length says")
        rest = self._signed(self._waiting) if self._waiting else b""
        return rest + self._signed(b"")[:-2] + self._trailers() + b"\r\n"

    def _signed(self, content: bytes) -> bytes:
        digest = sha256(content).hexdigest().encode()
        self._chain(b"AWS4-HMAC-SHA256-PAYLOAD", EMPTY + b"\n" + digest)
        return b"%x%b%b\r\n%b\r\n" % (len(content), _MARK, self._last, content)

    def _trailers(self) -> bytes:
        told = [pair for pair in self._reader.trailers if pair[0] != _SIGNATURE]
        if self._trailer is None:
            if told:
                raise Unsignable("the aws-chunked body has a trailer that x-amz-trailer does not")
            return b""
        if len(told) != 1 or told[0][0] != self._trailer:
            raise Unsignable("the trailer of the aws-chunked body is not the one in x-amz-trailer")
        (name, value) = told[0]
        if len(value) != CHECKSUMS[name]:
            raise Unsignable(f"the trailer {name.decode()} is not of the length of its checksum")
        digest = sha256(b"%b:%b\n" % (name, value)).hexdigest().encode()
        self._chain(b"AWS4-HMAC-SHA256-TRAILER", digest)
        return b"%b:%b\r\n%b:%b\r\n" % (name, value, _SIGNATURE, self._last)

    def _chain(self, algorithm: bytes, what: bytes) -> None:
        at, scope = self._at, self._signer.scope(self._at)
        text = b"\n".join((algorithm, at.stamp, scope, self._last, what))
        self._last = self._signer.sign(text, at)


def signed_length(size: int, trailer: bytes | None) -> int:
    """Return how many bytes a body of `size` takes once it is signed in chunks."""
    full, rest = divmod(size, CHUNK)
    total = full * _chunk_length(CHUNK) + (_chunk_length(rest) if rest else 0)
    total += _chunk_length(0)  # of which the last CRLF comes after the trailers
    if trailer is not None:
        total += len(trailer) + 1 + CHECKSUMS[trailer] + 2
        total += len(_SIGNATURE) + 1 + _SIGNATURE_SIZE + 2
    return total


def _chunk_length(size: int) -> int:
    return len(b"%x" % size) + len(_MARK) + _SIGNATURE_SIZE + 2 + size + 2
