"""The trail that the broker's event loop writes to: cheap to call, durable when it answers.

The loop hands over tuples. A thread encodes, chains and writes them, many at a time when many
wait, and tells the loop in one call that they are durable. A record that somebody waits for finds
the thread ready at once. One that nobody waits for does not rouse it from the nap after its last
work: mostly it is written with the next that somebody waits for, or else when the nap is over, and
committed after a short while. Until written it is lost with the process, until committed with
the machine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Final

from broker.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.audit.journal import Journal
    from broker.model import AuditRecord, RepeatedRecord

    Durable = Callable[[Exception | None], None]
    Entry = tuple[AuditRecord | RepeatedRecord, Durable | None]

QUEUE_LIMIT: Final = 16384
"""Records that may wait: about half a second at the greatest speed of a disk."""

# The encoder holds the interpreter for one chunk; the write after it lets the loop go on.
_CHUNK: Final = 64
_BATCH: Final = 1024

_LAZY_SECONDS: Final = 0.05
"""How long records that nobody waits for may lack their commit."""

_NAP_SECONDS: Final = 0.002
"""For how long after its last work the thread is not roused by a record that nobody waits for.

To rouse it costs more than to write the record; a flood of refusals would do so for each.
"""

_CROWD: Final = 4
_GATHER_SECONDS: Final = 0.001
"""How long a commit is put off for others to join, while each serves a crowd of waiting records.

It begins as soon as there are as many as the last one served. A sync costs as much processor time
as a whole request. Whoever is alone never waits for this.
"""

_NEVER: Final = sys.maxsize

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_RETRY_SECONDS: Final = 5.0

_log: Final = logging.getLogger(__name__)


class AuditTrail:
    """Implement `broker.audit.base.Trail` on a journal.

    When the journal fails, every record that waits and every later one is refused with
    `AuditUnavailable`, until writing works again; it is tried with growing pauses, and the gap
    is itself recorded.
    """

    def __init__(self, journal: Journal, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._journal: Final = journal
        self._limit: Final = queue_limit
        self._queue: Final[deque[Entry | None]] = deque()
        self._bell: Final[SimpleQueue[None]] = SimpleQueue()
        # Of the records that somebody waits for: how many the loop has queued and the thread has
        # taken, each written by one of the two alone, and at which number queued the bell rings.
        self._queued = 0
        self._taken = 0
        self._ring_at = _NEVER
        self._ring_for_any = False
        self._refusal: str | None = "the audit trail has not been started"
        self._refused = 0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def failure(self) -> str | None:
        """Why the trail refuses records, or None while it takes them."""
        return self._refusal

    async def start(self) -> None:
        """Open the journal and begin to take records.

        Raises `AuditUnavailable` or `ConfigurationError` if the trail cannot be written.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._journal.open)
        except OSError as error:
            raise AuditUnavailable(f"the audit trail cannot be opened: {error}") from error
        self._refusal = None
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Make what is queued durable, close the chain, and take no more records."""
        self._closing = True
        self._refusal = "the audit trail is closed"
        if self._thread is not None:
            self._queue.append(None)
            self._bell.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def append(self, record: AuditRecord | RepeatedRecord, durable: Durable | None = None) -> None:
        """Queue a record; see `broker.audit.base.Trail.append`."""
        if self._refusal is not None or len(self._queue) >= self._limit:
            self._refused += 1
            raise AuditUnavailable(self._refusal or "too many audit records wait to be written")
        self._queue.append((record, durable))
        if durable is not None:
            self._queued += 1
            if self._queued < self._ring_at:
                return
        elif not self._ring_for_any:
            return
        self._ring_at, self._ring_for_any = _NEVER, False
        self._bell.put(None)

    async def record(self, record: AuditRecord) -> None:
        """Append a record and return once it is durable; see `broker.audit.base.Trail`."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.append(record, partial(_settle, settled))
        await settled

    def _run(self) -> None:
        last = False
        written: list[Entry] = []
        due: float | None = None
        crowd = 0
        while not last:
            before = self._taken
            self._rest(self._patience(due))
            if crowd >= _CROWD and self._queued > before:
                self._sleep(_GATHER_SECONDS, wanted=crowd)
            batch, last = self._take()
            awaited = self._taken - before
            try:
                if batch:
                    written += batch
                    self._write(batch)
                    due = due or monotonic() + _LAZY_SECONDS
                if last or awaited or (due is not None and due <= monotonic()):
                    self._journal.commit()
                    crowd = awaited
                    self._tell(written, None)
                    written, due = [], None
                if not written:
                    self._journal.tend()
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be promised
                last = self._recover(error, written) or last
                written, due = [], None
        try:
            self._journal.close()
        except Exception as error:  # noqa: BLE001 - the next start finds a crash, and mends it
            _log.error("the audit trail could not be closed in good order: %s", error)

    def _patience(self, due: float | None) -> float | None:
        """Return for how many seconds to wait for records; None: until there are some."""
        return self._journal.due_in() if due is None else max(0.0, due - monotonic())

    def _rest(self, seconds: float | None) -> None:
        """Wait for records, for `seconds` at most, and begin with a nap."""
        nap = _NAP_SECONDS if seconds is None else min(seconds, _NAP_SECONDS)
        self._sleep(nap, wanted=1)
        self._sleep(None if seconds is None else seconds - nap, wanted=1, any_will_do=True)

    def _sleep(self, seconds: float | None, *, wanted: int, any_will_do: bool = False) -> None:
        """Wait until so many records are queued that somebody waits for, or any if that will do.

        May return early.
        """
        ring_at = self._taken + wanted
        self._ring_at, self._ring_for_any = ring_at, any_will_do
        # What was queued before that has not rung, and the end always counts.
        if self._queued < ring_at and not (self._queue and (any_will_do or self._closing)):
            with suppress(Empty):
                self._bell.get(timeout=seconds)
        self._ring_at, self._ring_for_any = _NEVER, False

    def _take(self) -> tuple[list[Entry], bool]:
        """Return what is queued, and whether it is the last."""
        queue = self._queue
        batch: list[Entry] = []
        for _ in range(min(len(queue), _BATCH)):
            entry = queue.popleft()
            if entry is None:
                return batch, True
            batch.append(entry)
            if entry[1] is not None:
                self._taken += 1
        return batch, False

    def _write(self, batch: list[Entry]) -> None:
        for start in range(0, len(batch), _CHUNK):
            self._journal.add(record for record, _ in batch[start : start + _CHUNK])

    def _tell(self, batch: list[Entry], error: Exception | None) -> None:
        callbacks = [durable for _, durable in batch if durable is not None]
        if callbacks:
            self._on_loop(partial(_call_all, callbacks, error))

    def _recover(self, error: Exception, batch: list[Entry]) -> bool:
        """Refuse everything until the journal works again; return whether to close instead."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self._refusal = f"the audit trail cannot be written: {reason}"
        self._refused += len(batch)
        refusal = AuditUnavailable(self._refusal)
        self._tell(batch, refusal)
        _log.critical("%s; nothing is let through until it can", self._refusal)
        pause = _FIRST_RETRY_SECONDS
        while True:
            self._sleep(pause, wanted=1, any_will_do=True)
            waiting, last = self._take()
            self._refused += len(waiting)
            self._tell(waiting, refusal)
            if last:
                return True
            if waiting:
                continue  # what was queued before the refusal became known
            try:
                self._journal.restore(reason, self._refused)
            except Exception as again:  # noqa: BLE001 - tried until it works
                _log.warning("the audit trail still cannot be written: %s", again)
                pause = min(2 * pause, _LAST_RETRY_SECONDS)
            else:
                self._refused = 0
                _log.warning("the audit trail can be written again")
                self._on_loop(self._accept)
                return False

    def _accept(self) -> None:
        if not self._closing:
            self._refusal = None

    def _on_loop(self, callback: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(callback)


def _settle(settled: asyncio.Future[None], error: Exception | None) -> None:
    if settled.done():
        return
    if error is None:
        settled.set_result(None)
    else:
        settled.set_exception(error)


def _call_all(callbacks: list[Durable], error: Exception | None) -> None:
    for durable in callbacks:
        try:
            durable(error)
        except Exception:  # noqa: BLE001 - the others wait for their records, too
            _log.exception("a callback failed that had waited for its audit record")
