"""What the processes of one broker tell each other of themselves, in memory that they share.

Each has a seat that it alone writes; all read all. Nothing here decides anything about a
request: it is what `/metrics` and `/readyz` say of the whole, whichever worker is asked.
"""

from __future__ import annotations

import os
import struct
from typing import Final
from zlib import crc32

_HEADER: Final = struct.Struct("<QI")  # length and checksum of what follows
_ATTEMPTS: Final = 8

SUPERVISOR: Final = 0
"""The supervisor's seat; workers have those from 1 on."""


class Scoreboard:
    """Seats for a supervisor and its workers; to be made before any of them is forked.

    The memory has no name, so no other process can reach it, and it is gone with the last of
    its processes. What a worker has written outlives it.
    """

    def __init__(self, workers: int) -> None:
        self._seats: Final = [os.memfd_create(f"broker-{seat}") for seat in range(workers + 1)]
        self._known: Final = [b""] * len(self._seats)

    @property
    def workers(self) -> range:
        """The workers' seats."""
        return range(1, len(self._seats))

    def write(self, seat: int, content: bytes) -> None:
        """Put `content` in the place of what was there."""
        data = _HEADER.pack(len(content), crc32(content)) + content
        os.pwrite(self._seats[seat], data, 0)

    def read(self, seat: int) -> bytes:
        """Return what was last written whole; nothing if nothing was."""
        descriptor = self._seats[seat]
        for _ in range(_ATTEMPTS):
            header = os.pread(descriptor, _HEADER.size, 0)
            if len(header) < _HEADER.size:
                break
            length, checksum = _HEADER.unpack(header)
            content = os.pread(descriptor, length, _HEADER.size)
            # Writing is not atomic, and its process may have been killed in the midst of it.
            if len(content) == length and crc32(content) == checksum:
                self._known[seat] = content
                break
        return self._known[seat]

    def close(self) -> None:
        """Release this process's hold on the memory."""
        for descriptor in self._seats:
            os.close(descriptor)
