"""An upstream that nginx cannot be: it paces events, and takes bodies that it never reads.

`python -m bench.upstream PORT INTERVAL` sends on each stream one event every INTERVAL seconds, at
times of its own, so that no two streams' events come as one. An event says when it was sent, by
the monotonic clock, which all processes of a machine share. A request for /v1/files/sink is read
no further than its head, and never answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final, cast

import uvloop

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SINK: Final = "/v1/files/sink"
STAMP: Final = b'"sent":'
_FILLER: Final = b'"delta":"%b","index":0,"role":"assistant"}\n\n' % (b"word " * 20)
_PHASES: Final = 20


def event(number: int) -> bytes:
    """Return one event as a chunk, of about 200 bytes."""
    data = b'data: {"id":%d,%b%.6f,%b' % (number, STAMP, time.monotonic(), _FILLER)
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream(asyncio.Protocol):
    """One connection; `streams` are those that get events, in a group for each phase."""

    def __init__(self, streams: list[set[Stream]]) -> None:
        self._streams = streams
        self._group: set[Stream] | None = None
        self._transport: asyncio.Transport | None = None
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (`asyncio.Protocol`)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Begin the stream that is asked for, or stop reading (`asyncio.Protocol`)."""
        if self._transport is None or self._group is not None:
            return
        if SINK.encode() in data:
            self._transport.pause_reading()
        else:
            self._transport.write(HEAD)
            self._group = min(self._streams, key=len)
            self._group.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """End (`asyncio.Protocol`)."""
        if self._group is not None:
            self._group.discard(self)

    def send(self) -> None:
        """Send the next event."""
        if self._transport is not None:
            self._number += 1
            self._transport.write(event(self._number))


async def serve(port: int, interval: float) -> None:
    """Serve until the process is ended."""
    streams: list[set[Stream]] = [set() for _ in range(_PHASES)]
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Stream(streams), "127.0.0.1", port, backlog=4096)
    phase, due = 0, loop.time()
    while True:
        due += interval / _PHASES
        await asyncio.sleep(max(0.0, due - loop.time()))
        phase = (phase + 1) % _PHASES
        for stream in list(streams[phase]):
            stream.send()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
