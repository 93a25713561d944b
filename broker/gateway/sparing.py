"""Read in small pieces where many connections are open, so that a crowd fits in little memory.

What was read for somebody who takes it slowly has to wait in memory, and the event loop reads up to
256 KiB at once. A few connections may; of the others each gets a share of what there is for all.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

_MOST: Final = 64 << 10
_LEAST: Final = 4 << 10


class Room:
    """What the connections of a crowd may read at once: `all_bytes`, shared among them.

    One `buffer` serves them all, for what is read is taken out before another reads; `view` is
    the part of it that each may use now.
    """

    __slots__ = ("_all", "_members", "buffer", "view")

    def __init__(self, all_bytes: int) -> None:
        self._all = all_bytes
        self._members = 0
        self.buffer = memoryview(bytearray(_MOST))
        self.view = self.buffer

    def enter(self) -> None:
        """Make room for one more."""
        self._members += 1
        self._share()

    def leave(self) -> None:
        """Leave its room to the others."""
        self._members -= 1
        self._share()

    def _share(self) -> None:
        share = self._all // max(1, self._members)
        self.view = self.buffer[: min(_MOST, max(_LEAST, share))]


class Sparing(asyncio.BufferedProtocol):
    """Stand between a connection and `protocol`, and read in pieces as large as there is `room`."""

    def __init__(self, protocol: asyncio.Protocol, room: Room) -> None:
        self.protocol = protocol
        self._room = room
        self._entered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, and let as little as can be wait to be written (`asyncio.Protocol`)."""
        self._room.enter()
        self._entered = True
        self.protocol.connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(0)

    def connection_lost(self, error: Exception | None) -> None:
        """End (`asyncio.Protocol`)."""
        if self._entered:
            self._room.leave()
        self.protocol.connection_lost(error)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - it has a size of its own
        """Return where to read to (`asyncio.BufferedProtocol`)."""
        return self._room.view

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read (`asyncio.BufferedProtocol`)."""
        self.protocol.data_received(self._room.buffer[:nbytes].tobytes())

    def eof_received(self) -> bool | None:
        """Pass on that the other side ends (`asyncio.Protocol`)."""
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the other side is slow (`asyncio.Protocol`)."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it has caught up (`asyncio.Protocol`)."""
        self.protocol.resume_writing()
