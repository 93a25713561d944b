"""A request body on its way to the upstream, framed anew."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.gateway.framing import LAST_CHUNK, chunk
from broker.gateway.trailers import last_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.gateway.upstream import UpstreamConnection
    from providers.signing import BodyCoder

    Passing = Callable[[Sequence[bytes]], bytes]


_LITTLE: Final = 16 << 10
_SMALL: Final = 4 << 10
"""Bytes below which a piece waits together with the next: each would take more than its bytes."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """Where a body comes from."""

    def write(self, data: bytes) -> None:
        """Tell the sender something before it has sent the body."""
        ...

    def hold(self) -> None:
        """Send no more for now."""
        ...

    def release(self) -> None:
        """Go on."""
        ...


class Upload:
    """A body that waits for its upstream in `buffer` bytes at most, and then flows.

    `size` counts what came in; `done` is true once all of it has, and `whole` where all of it
    waits before any of it flows. More than `most` bytes are too many; `room` is what has been
    set aside for them. `trailers` are the lines that came after it, of which `flow` is
    told what may pass. Whoever `expects` it is told to go on when somebody takes the body.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_coder",
        "_digest",
        "_expects",
        "_passing",
        "_source",
        "_upstream",
        "_waiting",
        "done",
        "most",
        "room",
        "size",
        "slow",
        "trailers",
        "whole",
    )

    def __init__(
        self,
        source: Source,
        *,
        chunked: bool,
        buffer: int,
        most: int = sys.maxsize,
        expects: bool = False,
    ) -> None:
        self._source = source
        self._expects = expects
        self._chunked = chunked
        self._buffer = buffer
        self._coder: BodyCoder | None = None
        self._digest: Any = None  # hashlib gives its type no public name
        self._waiting: list[bytes] = []
        self._upstream: UpstreamConnection | None = None
        self._passing: Passing | None = None
        self.trailers: Sequence[bytes] = ()
        self.most = most
        self.room = 0
        self.size = 0
        self.done = False
        self.slow = False
        self.whole = False

    def add(self, content: bytes) -> None:
        """Take body bytes, which are not empty."""
        self.size += len(content)
        if self._upstream is not None:
            self._write(self._upstream, content)
            return
        if self._waiting and len(self._waiting[-1]) < _SMALL:
            self._waiting[-1] += content
        else:
            self._waiting.append(content)
        if self._digest is not None:
            self._digest.update(content)
        if self.size > self._buffer:
            self._source.hold()

    def end(self, trailers: Sequence[bytes] = ()) -> None:
        """Take note that the body is complete, and of the lines of its trailer section."""
        self.done = True
        self.trailers = trailers
        if self._upstream is not None:
            self._finish(self._upstream)

    def collect(self, most: int, room: int) -> None:
        """Take the whole body before any of it flows; it is of a known length then."""
        self.whole = True
        self.room = room
        self._chunked = False
        self._buffer = self.most = most
        self._digest = sha256(b"".join(self._waiting))
        self._welcome()
        self._source.release()

    def digest(self) -> bytes:
        """Return the SHA-256, in hex, of a body that has been collected."""
        if self._digest is None:
            raise RuntimeError("nobody has asked for the whole body")
        digest: bytes = self._digest.hexdigest().encode()
        return digest

    def after(self, head: bytes) -> bytes:
        """Return `head` and behind it what waits of the body, if that is little.

        What goes out at once is one packet and one wake-up at the other end, in place of two.
        """
        if not self._waiting or self.size > _LITTLE:
            return head
        waiting, self._waiting = self._waiting, []
        return b"".join([head, *(map(chunk, waiting) if self._chunked else waiting)])

    def flow(
        self,
        upstream: UpstreamConnection,
        passing: Passing | None = None,
        coder: BodyCoder | None = None,
    ) -> None:
        """Send what waits, and from now on whatever comes; what `coder` makes of it, if given.

        `passing` returns the field lines to send of a trailer section; without it, none are.
        """
        self._upstream = upstream
        self._passing = passing
        if coder is not None:
            self._coder = coder
            self._chunked = False
        self._welcome()
        waiting, self._waiting = self._waiting, []
        for content in waiting:
            self._write(upstream, content)
        if self.done:
            self._finish(upstream)
        elif not self.slow:
            self._source.release()

    def brake(self) -> None:
        """Let the source wait, for the upstream is slow."""
        self.slow = True
        self._source.hold()

    def ease(self) -> None:
        """Let the source go on."""
        self.slow = False
        self._source.release()

    def _welcome(self) -> None:
        if self._expects and not self.size:
            self._source.write(CONTINUE)
        self._expects = False

    def _write(self, upstream: UpstreamConnection, content: bytes) -> None:
        if self._coder is not None:
            content = self._coder.add(content)
            if not content:
                return
        upstream.write(chunk(content) if self._chunked else content)

    def _finish(self, upstream: UpstreamConnection) -> None:
        if self._coder is not None:
            upstream.write(self._coder.end())
        elif self._chunked:
            trailers = self.trailers
            section = self._passing(trailers) if trailers and self._passing else b""
            upstream.write(last_chunk(section) if section else LAST_CHUNK)
        upstream.sent()
