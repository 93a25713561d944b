"""A request body on its way to the upstream, framed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from broker.gateway.framing import LAST_CHUNK, chunk
from broker.gateway.trailers import last_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.gateway.upstream import UpstreamConnection

    Passing = Callable[[Sequence[bytes]], bytes]


class Source(Protocol):
    """Where a body comes from."""

    def hold(self) -> None:
        """Send no more for now."""
        ...

    def release(self) -> None:
        """Go on."""
        ...


class Upload:
    """A body that waits for its upstream in `buffer` bytes at most, and then flows.

    `size` counts what came in; `done` is true once all of it has. `trailers` are the lines that
    came after it, of which `flow` is told what may pass.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_passing",
        "_source",
        "_upstream",
        "_waiting",
        "done",
        "size",
        "slow",
        "trailers",
    )

    def __init__(self, source: Source, *, chunked: bool, buffer: int) -> None:
        self._source = source
        self._chunked = chunked
        self._buffer = buffer
        self._waiting: list[bytes] = []
        self._upstream: UpstreamConnection | None = None
        self._passing: Passing | None = None
        self.trailers: Sequence[bytes] = ()
        self.size = 0
        self.done = False
        self.slow = False

    def add(self, content: bytes) -> None:
        """Take body bytes, which are not empty."""
        self.size += len(content)
        self._write(chunk(content) if self._chunked else content)
        if self._upstream is None and self.size > self._buffer:
            self._source.hold()

    def end(self, trailers: Sequence[bytes] = ()) -> None:
        """Take note that the body is complete, and of the lines of its trailer section."""
        self.done = True
        self.trailers = trailers
        if self._upstream is not None:
            self._finish(self._upstream)

    def flow(self, upstream: UpstreamConnection, passing: Passing | None = None) -> None:
        """Send what waits, and from now on whatever comes.

        `passing` returns the field lines to send of a trailer section; without it, none are.
        """
        self._upstream = upstream
        self._passing = passing
        for data in self._waiting:
            upstream.write(data)
        self._waiting.clear()
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

    def _finish(self, upstream: UpstreamConnection) -> None:
        if self._chunked:
            trailers = self.trailers
            section = self._passing(trailers) if trailers and self._passing else b""
            upstream.write(last_chunk(section) if section else LAST_CHUNK)
        upstream.sent()

    def _write(self, data: bytes) -> None:
        if self._upstream is None:
            self._waiting.append(data)
        else:
            self._upstream.write(data)
