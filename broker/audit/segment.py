"""The files that hold a trail: append-only segments of one JSON object a line.

A segment is named after its writer and the sequence number of its first record, so that the
names alone, sorted, give the order: `main-000000000001.jsonl`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.errors import ConfigurationError
from broker.files import open_private_append

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MAX_LINE: Final = 1 << 20
"""Far above what a record can take, so that a hostile file cannot fill the memory."""

_WRITER: Final = r"[a-z][a-z0-9_.]{0,31}"
_SEGMENT: Final = re.compile(rf"(?P<writer>{_WRITER})-(?P<first>\d{{12}})\.jsonl")


class SegmentName(NamedTuple):
    """A segment on disk: its writer and the sequence number its first record should have."""

    writer: str
    first: int
    path: Path


def require_writer_name(writer: str) -> None:
    """Raise `ConfigurationError` unless `writer` can be part of a segment's name."""
    if not re.fullmatch(_WRITER, writer):
        raise ConfigurationError(
            f"audit writer {writer!r}: expected a lower-case letter, then up to 31 lower-case "
            "letters, digits, dots and underscores"
        )


def segment_path(directory: Path, writer: str, first: int) -> Path:
    """Return where the segment that begins with record `first` is kept."""
    return directory / f"{writer}-{first:012d}.jsonl"


def list_segments(directory: Path, writer: str | None = None) -> list[SegmentName]:
    """Return the segments of one writer, or of all, by writer and sequence."""
    found = []
    for path in directory.iterdir():
        match = _SEGMENT.fullmatch(path.name)
        if match and writer in {None, match["writer"]}:
            found.append(SegmentName(match["writer"], int(match["first"]), path))
    return sorted(found)


def open_for_reading(path: Path) -> BinaryIO:
    """Open a regular file, never through a link. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering=1 << 18)


def read_lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield a segment's lines with their newlines; the last may be incomplete.

    A line over `MAX_LINE` comes in pieces, none of which is a record. Raises OSError.
    """
    with open_for_reading(path) as file:
        file.seek(offset)
        while line := file.readline(MAX_LINE):
            yield line


class Segment:
    """One segment, open for appending by the one process that may.

    `durable` is the offset up to which everything is on disk. Methods raise OSError, or
    `ConfigurationError` for a file that is not private.
    """

    def __init__(self, path: Path, born: float) -> None:
        self.path: Final = path
        self.born: Final = born
        self._descriptor = open_private_append(path)
        status = os.fstat(self._descriptor)
        self._identity: Final = _identity(status)
        self._interfered = False
        self.durable = self._written = self._attempted = status.st_size

    def append(self, data: bytes) -> None:
        """Write `data` at the end, whole."""
        self._attempted = self._written + len(data)
        written = os.write(self._descriptor, data)
        self._written += written
        if written != len(data):
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")

    def commit(self) -> None:
        """Return once all that was appended is on disk and still where it was put."""
        os.fdatasync(self._descriptor)
        self.settle(self._written)

    @property
    def descriptor(self) -> int:
        """The open file, for whoever else syncs it."""
        return self._descriptor

    @property
    def written(self) -> int:
        """The offset up to which everything has been written, durable or not yet."""
        return self._written

    def settle(self, size: int) -> None:
        """Take note that the first `size` bytes were synced, and are still where they were put."""
        status = os.fstat(self._descriptor)
        if status.st_size != self._written or status.st_nlink == 0:
            self._interfered = True  # what we wrote since may hide the traces
            raise OSError(errno.ESTALE, "the segment was changed by someone else")
        self.durable = size

    def interference(self) -> str | None:
        """Return what someone else did to the file, or None. Raises OSError."""
        try:
            status = self.path.lstat()
        except FileNotFoundError:
            return "it was removed"
        if _identity(status) != self._identity:
            return "another file was put in its place"
        if status.st_size < self.durable:
            return f"it was cut to {status.st_size} of {self.durable} bytes"
        if status.st_size > self._attempted:
            return f"{status.st_size - self._attempted} bytes were added to it"
        return "its size was changed while it was written" if self._interfered else None

    def reopened(self) -> Segment:
        """Open the segment anew, cut back to what is durable."""
        # The old descriptor first keeps the file's inode number from being given to another.
        segment = Segment(self.path, self.born)
        if segment._descriptor == self._descriptor:
            self._descriptor = -1  # ours had been closed behind our back, and its number reused
        self.close()
        try:
            segment._require_same(self._identity, self.durable)
            segment.cut(self.durable)
        except OSError:
            segment.close()
            raise
        return segment

    def _require_same(self, identity: tuple[int, int], durable: int) -> None:
        if self._identity != identity or self.durable < durable:
            raise OSError(errno.ESTALE, "another file was put in its place", str(self.path))

    def cut(self, size: int) -> None:
        """Drop what follows the first `size` bytes, durably."""
        os.ftruncate(self._descriptor, size)
        os.fdatasync(self._descriptor)
        self.durable = self._written = self._attempted = size

    def close(self) -> None:
        """Close the file, once. An error is of no consequence: what counted is durable."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            with suppress(OSError):
                os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
