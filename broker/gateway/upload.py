"""A request body on its way to the upstream, framed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from broker.gateway.framing import LAST_CHUNK, chunk

if TYPE_CHECKING:
    from broker.gateway.upstream import UpstreamConnection


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

    `size` counts what came in; `done` is true once all of it has.
    """

    __slots__ = ("_buffer", "_chunked", "_source", "_upstream", "_waiting", "done", "size", "slow")

    def __init__(self, source: Source, *, chunked: bool, buffer: int) -> None:
        self._source = source
        self._chunked = chunked
        self._buffer = buffer
        self._waiting: list[bytes] = []
        self._upstream: UpstreamConnection | None = None
        self.size = 0
        self.done = False
        self.slow = False

    def add(self, content: bytes) -> None:
        """Take body bytes, which are not empty."""
        self.size += len(content)
        self._write(chunk(content) if self._chunked else content)
        if self._upstream is None and self.size > self._buffer:
            self._source.hold()

    def end(self) -> None:
        """Take note that the body is complete."""
        self.done = True
        if self._chunked:
            self._write(LAST_CHUNK)
        if self._upstream is not None:
            self._upstream.sent()

    def flow(self, upstream: UpstreamConnection) -> None:
        """Send what waits, and from now on whatever comes."""
        self._upstream = upstream
        for data in self._waiting:
            upstream.write(data)
        self._waiting.clear()
        if self.done:
            upstream.sent()
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

    def _write(self, data: bytes) -> None:
        if self._upstream is None:
            self._waiting.append(data)
        else:
            self._upstream.write(data)
