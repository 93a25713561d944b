"""Write one writer's chain: durably, in order, signed from time to time.

`Journal` knows no event loop. `AuditTrail` drives one from its loop, and has done in a thread what
blocks for long; commands of the command line use one directly.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broker.audit.chain import Chain, Position
from broker.audit.head import Anchor, Head, read_head, write_head, writers_with_head
from broker.audit.recovery import parse_line, resume
from broker.audit.segment import Segment, read_lines, require_writer_name, segment_path
from broker.audit.statement import sign_statement
from broker.errors import AuditUnavailable
from broker.files import open_private_append, private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from broker.audit.statement import Signs, TrustedKeys
    from broker.model import AuditRecord
    from broker.repeated import RepeatedRecord

CHECKPOINT_SECONDS: Final = 30.0
"""How long records may wait for a signed checkpoint, with room below the 60 s promised."""

HEAD_SECONDS: Final = 1.0
"""How far the head may lag behind the records, in seconds."""

_LOCK_POLL_SECONDS: Final = 0.02

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a new segment begins: at `size` bytes or `age` seconds, whichever is first."""

    size: int = 64 << 20
    age: float = 86400.0


class Mark(NamedTuple):
    """What a sync covers: the file's descriptor, its size in bytes, its last record."""

    descriptor: int
    size: int
    position: Position


class Journal:
    """Append to one writer's chain. One process at a time, one thread at a time.

    `anchor` is told of each checkpoint's record, to keep it where an editor of the files cannot
    reach. Methods raise OSError or `BrokerError` when the disk or the key fails; call
    `restore` until it succeeds before anything else then.
    """

    def __init__(  # noqa: PLR0913 - one argument for each thing that only the caller knows
        self,
        directory: Path,
        signer: Signs,
        trusted: TrustedKeys,
        *,
        writer: str = "main",
        rotation: Rotation = Rotation(),
        clock: Callable[[], float] = time.time,
        anchor: Callable[[Anchor], None] | None = None,
    ) -> None:
        require_writer_name(writer)
        self._directory: Final = directory
        self._writer: Final = writer
        self._signer: Final = signer
        self._trusted: Final = trusted
        self._rotation: Final = rotation
        self._clock: Final = clock
        self._anchor: Final = anchor
        self._lock: int | None = None
        self._chain = Chain(writer)
        self._segment: Segment | None = None
        self._durable = self._chain.position
        self._broken: str | None = None
        self._failed = False
        self._sealed = self._headed = self._durable.seq
        self._sealed_at = self._headed_at = time.monotonic()

    def open(self, wait: float = 0.0) -> None:
        """Take the writer's lock, within `wait` seconds, and go on where its chain ends.

        Raises `AuditUnavailable` if another process holds the lock.
        """
        private_directory(self._directory)
        self._lock = self._take_lock(wait)
        try:
            self._resume()
        except BaseException:
            self.abandon()
            raise

    def add(self, records: Iterable[AuditRecord | RepeatedRecord]) -> None:
        """Write records after the last one; they are durable once `commit` has returned."""
        with self._failing():
            self._current.append(b"".join(map(self._chain.add, records)))

    def commit(self) -> None:
        """Return once everything that was added is durable."""
        with self._failing():
            self._current.commit()
        self._durable = self._chain.position

    def mark(self) -> Mark:
        """Return what a sync of the file that begins now will make durable."""
        segment = self._current
        return Mark(segment.descriptor, segment.written, self._chain.position)

    def committed(self, mark: Mark) -> None:
        """Take note that a sync that began at `mark` has ended well; in between, only `add`."""
        with self._failing():
            self._current.settle(mark.size)
        self._durable = mark.position

    def commit_and_tend(self) -> None:
        """Commit, then tend."""
        self.commit()
        self.tend()

    @property
    def full(self) -> bool:
        """Whether the next to `tend` begins a new segment because of the size of this one."""
        return self._current.durable >= self._rotation.size

    def due_in(self) -> float | None:
        """Return in how many seconds `tend` has something to do, or None for never."""
        due = []
        if self._headed != self._durable.seq:
            due.append(self._headed_at + HEAD_SECONDS)
        if self._sealed != self._durable.seq:
            due.append(self._sealed_at + CHECKPOINT_SECONDS)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def tend(self) -> None:
        """Do what is due: sign a checkpoint, begin a new segment, write the head.

        To be called when everything is committed.
        """
        now = time.monotonic()
        with self._failing():
            if self._sealed != self._durable.seq and now - self._sealed_at >= CHECKPOINT_SECONDS:
                self._checkpoint()
            if self._current.durable and (
                self.full or self._clock() - self._current.born >= self._rotation.age
            ):
                self._rotate()
            if self._headed != self._durable.seq and now - self._headed_at >= HEAD_SECONDS:
                if interference := self._current.interference():
                    raise OSError(errno.ESTALE, interference, str(self._current.path))
                self._write_head()

    def restore(self, reason: str, lost: int) -> None:
        """Go on after a failure, leaving a record of it; raise again if it persists.

        `lost` is the number of records that were refused because of it.
        """
        self._chain.position = self._durable
        if interference := self._current.interference():
            self._broken = f"{self._current.path.name}: {interference}"
            self._current.close()
            self._segment = self._new_segment()
        else:
            self._segment = self._current.reopened()
        self._note_break()
        self._note("audit.resume", f"{lost} records were refused and are not here: {reason}")
        self._write_head()
        self._failed = False

    def close(self) -> None:
        """Sign what is not signed yet, close the chain in good order, release the lock.

        After a failure that was not restored the chain is left as a crash would leave it.
        """
        try:
            if self._segment is not None and not self._failed:
                if self._sealed != self._durable.seq:
                    self._checkpoint()
                self._write_head(closed=True)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the files and the lock, as the end of the process would."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Remember a failure: what a disk says after one is not to be relied on."""
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    @property
    def _current(self) -> Segment:
        if self._segment is None:
            raise AuditUnavailable(f"the audit trail of writer {self._writer} is not open")
        return self._segment

    def _take_lock(self, wait: float) -> int:
        path = self._directory / f"{self._writer}.lock"
        lock = open_private_append(path)
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOCK_POLL_SECONDS)
                    continue
                os.close(lock)
                raise AuditUnavailable(
                    f"another process writes the audit trail of writer {self._writer}; "
                    f"stop it first (it holds {path})"
                ) from None
            return lock

    def _resume(self) -> None:
        for leftover in self._directory.glob(f".{self._writer}.head.*"):
            leftover.unlink()  # a process was killed while it replaced its head
        found = resume(self._directory, self._writer, self._trusted)
        self._chain = Chain(self._writer, found.position)
        self._durable = found.position
        self._sealed = self._headed = found.position.seq
        self._broken = found.broken
        if found.position.seq == 0 and found.broken is None:
            # Before the first segment: from then on, a head that is missing is a finding.
            self._write_head()
        if found.segment is None:
            self._segment = self._new_segment()
        else:
            self._segment = Segment(found.segment, _born(found.segment, self._clock()))
            if found.torn:
                self._segment.cut(found.size)
        self._note_break()
        if found.broken is None and (found.torn or found.unsigned):
            self._note(
                "audit.recover",
                f"the writer had not closed its chain: {found.unsigned} records behind its "
                f"head were kept, {found.torn} bytes of an incomplete record dropped",
            )
        self._write_head()  # no longer closed: from here on, records may follow it

    def _new_segment(self) -> Segment:
        first = self._chain.position.seq + 1
        # The name is taken only where someone tampered: the gap in the numbers shows it, too.
        while (path := self._segment_path(first)).exists():
            first += 1
        self._chain.position = Position(first - 1, self._chain.position.hash)
        return Segment(path, self._clock())

    def _rotate(self) -> None:
        if self._sealed != self._durable.seq:
            self._checkpoint()
        self._current.close()
        self._segment = self._new_segment()

    def _checkpoint(self) -> None:
        seq, digest = self._durable
        now = self._clock()
        statement = {
            "writer": self._writer,
            "seq": seq,
            "hash": digest,
            "time": self._chain.timestamp(now),
            "heads": self._other_heads(),
        }
        signature = sign_statement(self._signer, "checkpoint", statement)
        self._add_own(
            now,
            {"action": "audit.checkpoint", "heads": statement["heads"], "signature": signature},
        )
        self._sealed, self._sealed_at = self._durable.seq, time.monotonic()
        if self._anchor is not None:
            try:
                self._anchor(Anchor(self._writer, *self._durable))
            except Exception:  # noqa: BLE001 - the record is safe here, whatever happens there
                _log.exception("an anchor of the audit trail could not be kept elsewhere")

    def _other_heads(self) -> dict[str, dict[str, Any]]:
        """Return where the other writers are, so that none of them can vanish alone."""
        heads = {}
        for writer in writers_with_head(self._directory):
            if writer != self._writer:
                head = read_head(self._directory, writer, self._trusted)
                if isinstance(head, Head) and head.seq:
                    heads[writer] = {"seq": head.seq, "hash": head.hash}
        return heads

    def _note_break(self) -> None:
        if self._broken is not None:
            self._note("audit.break", self._broken)
            self._broken = None

    def _note(self, action: str, detail: str) -> None:
        self._add_own(self._clock(), {"action": action, "detail": detail})

    def _add_own(self, now: float, fields: dict[str, Any]) -> None:
        self._current.append(self._chain.add_own(now, fields))
        self.commit()

    def _write_head(self, *, closed: bool = False) -> None:
        seq, digest = self._durable
        segment = self._segment
        head = Head(
            writer=self._writer,
            seq=seq,
            hash=digest,
            time=self._chain.timestamp(self._clock()),
            segment=segment.path.name if segment else self._segment_path(1).name,
            offset=segment.durable if segment else 0,
            closed=closed,
        )
        write_head(self._directory, head, self._signer)
        self._headed, self._headed_at = seq, time.monotonic()

    def _segment_path(self, first: int) -> Path:
        return segment_path(self._directory, self._writer, first)


def _born(path: Path, default: float) -> float:
    """Return when a segment's first record was written, in seconds since the epoch."""
    record = parse_line(next(iter(read_lines(path)), b""))
    try:
        return datetime.fromisoformat(record["time"]).timestamp() if record else default
    except (KeyError, TypeError, ValueError):
        return default
