"""The trail that the broker's event loop writes to: cheap to call, durable when it answers.

The loop hands over tuples, and encodes, chains and writes them itself, many at a time when many
wait; then the kernel syncs the file while the loop goes on, or a thread does where the kernel does
not offer that. Records that come meanwhile share the next commit. One that nobody waits for is
mostly written with the next that somebody waits for, or else after a nap, and committed after
a short while. Until written it is lost with the process, until committed with the machine.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.audit.sync import KernelSync, SyncUnavailable
from broker.errors import AuditUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.audit.journal import Journal, Mark
    from broker.model import AuditRecord
    from broker.repeated import RepeatedRecord

    Durable = Callable[[Exception | None], None]
    Entry = tuple[AuditRecord | RepeatedRecord, Durable | None]

QUEUE_LIMIT: Final = 16384
"""Records that may wait: about half a second at the greatest speed of a disk."""

_BATCH: Final = 512
"""Records written in one turn of the loop, for a millisecond at most."""

_NAP_SECONDS: Final = 0.002
"""For how long a record that nobody waits for stays unwritten, unless somebody's is written."""

_LAZY_SECONDS: Final = 0.05
"""How long records that nobody waits for may lack their commit."""

_CROWD: Final = 4
_GATHER_SECONDS: Final = 0.001
"""How long a commit is put off for others to join, while each serves a crowd of waiting records.

It begins as soon as there are as many as the last one served. A sync costs as much processor time
as a whole request. Whoever is alone never waits for this.
"""

_BESIDE_SECONDS: Final = 0.004
"""For how long, at least, a record may change before it is written; for twice as long at most."""

_NEVER: Final = sys.maxsize

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_RETRY_SECONDS: Final = 5.0

_log: Final = logging.getLogger(__name__)


class AuditTrail:
    """Implement `broker.audit.base.BusyTrail` on a journal.

    When the journal fails, every record that waits and every later one is refused with
    `AuditUnavailable`, until writing works again; it is tried with growing pauses, and the gap
    is itself recorded.
    """

    def __init__(self, journal: Journal, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._journal: Final = journal
        self._limit: Final = queue_limit
        self._queue: Final[deque[Entry]] = deque()
        # Records that nobody waits for yet: those since the last sweep, and those before.
        self._beside: list[RepeatedRecord] = []
        self._beside_longer: list[RepeatedRecord] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._written: list[Entry] = []  # and covered by no commit yet
        self._committing: list[Entry] = []
        self._serving: list[Durable] = []  # whom the commit under way serves
        # Of the records that somebody waits for: how many no commit covers yet, at how many the
        # next begins, and how many the last one served.
        self._awaited = 0
        self._begin_at = _NEVER
        self._crowd = 0
        self._commits = 0
        # While a commit is under way, or a thread is at work on the journal, nothing else is.
        self._busy = False
        self._refusal: str | None = "the audit trail has not been started"
        self._refused = 0
        self._pause = _FIRST_RETRY_SECONDS
        self._nap: asyncio.TimerHandle | None = None
        self._due_at = 0.0  # when what is written is to be committed, by the loop's clock
        self._tend_timer: asyncio.TimerHandle | None = None
        self._tend_due = False
        self._retry: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._aside: ThreadPoolExecutor | None = None
        self._kernel: KernelSync | None = None

    @property
    def failure(self) -> str | None:
        """Why the trail refuses records, or None while it takes them."""
        return self._refusal

    async def start(self) -> None:
        """Open the journal and begin to take records, after `close` again.

        Raises `AuditUnavailable` or `ConfigurationError` if the trail cannot be written.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._journal.open)
        except OSError as error:
            raise AuditUnavailable(f"the audit trail cannot be opened: {error}") from error
        self._aside = ThreadPoolExecutor(1, "audit-writer")
        with suppress(SyncUnavailable):
            self._kernel = KernelSync(self._loop)
        self._refusal = self._ended = None
        self._busy = False
        self._next()

    async def close(self) -> None:
        """Make what is queued durable, close the chain, and take no more records."""
        self._refusal = "the audit trail is closed"
        if self._aside is None:
            return
        if self._ended is None:
            self._ended = self._loop.create_future()
            for record in self._all_beside():
                self.press(record)
            if self._busy:
                self._stop_retrying()
            else:
                self._next()
        await asyncio.shield(self._ended)

    def append(self, record: AuditRecord | RepeatedRecord, durable: Durable | None = None) -> None:
        """Queue a record; see `broker.audit.base.Trail.append`."""
        if self._refusal is not None or len(self._queue) >= self._limit:
            self._refused += 1
            raise AuditUnavailable(self._refusal or "too many audit records wait to be written")
        if durable is not None:
            self._enqueue(record, durable)
            return
        self._queue.append((record, None))
        if self._nap is None:
            self._nap = self._loop.call_later(_NAP_SECONDS, self._write_lazily)

    def append_beside(self, record: RepeatedRecord, durable: Durable) -> None:
        """Take a record that nobody waits for yet; see `broker.audit.base.BusyTrail`."""
        if self._crowd < _CROWD or self._refusal is not None or len(self._beside) >= self._limit:
            self.append(record, durable)  # whoever is alone is served soonest so
            return
        record.beside = durable
        self._beside.append(record)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_BESIDE_SECONDS, self._press_old)

    def press(self, record: RepeatedRecord) -> None:
        """Write a record that was kept beside; see `broker.audit.base.BusyTrail`."""
        durable, record.beside = record.beside, None
        if durable is not None:
            self._enqueue(record, durable)

    async def record(self, record: AuditRecord) -> None:
        """Append a record and return once it is durable; see `broker.audit.base.Trail`."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.append(record, partial(_settle, settled))
        await settled

    def _enqueue(self, record: AuditRecord | RepeatedRecord, durable: Durable) -> None:
        self._queue.append((record, durable))
        self._awaited += 1
        if self._awaited == self._begin_at:
            self._begin_at = _NEVER
            self._loop.call_soon(self._commit)

    def _press_old(self) -> None:
        """Write what has been beside for long enough, though nobody waits for it."""
        self._sweep = None
        for record in self._beside_longer:
            self.press(record)
        self._beside_longer, self._beside = self._beside, []
        if self._beside_longer:
            self._sweep = self._loop.call_later(_BESIDE_SECONDS, self._press_old)

    def _all_beside(self) -> list[RepeatedRecord]:
        """Return what is beside, for it will be so no longer."""
        beside = [*self._beside_longer, *self._beside]
        self._beside, self._beside_longer = [], []
        return beside

    def _next(self) -> None:
        """Begin what is to be done next, or wait for what it needs. Nothing is under way."""
        wanted = self._crowd if self._crowd >= _CROWD else 1
        if self._ended is not None and not self._queue and not self._written:
            self._busy = True
            self._in_thread(self._journal.close, self._closed)
        elif self._awaited >= wanted or self._tend_due or self._ended is not None:
            self._loop.call_soon(self._commit)
        else:
            self._begin_at = wanted
            if wanted > 1:
                self._loop.call_later(_GATHER_SECONDS, self._stop_gathering, self._commits)

    def _stop_gathering(self, commits: int) -> None:
        if commits == self._commits and not self._busy:  # else as many came as were waited for
            self._crowd = 0
            self._begin_at = _NEVER
            self._next()

    def _commit(self) -> None:
        """Write what is queued, and begin to make durable all that was written."""
        if self._busy:
            return
        self._busy = True
        self._begin_at = _NEVER
        self._commits += 1
        try:
            self._write()
            self._committing, self._written = self._written, []
            self._serving = [durable for _, durable in self._committing if durable is not None]
            self._awaited -= len(self._serving)
            self._sync()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be promised
            self._fail(error)

    def _sync(self) -> None:
        if self._kernel is not None and not self._tend_due and not self._journal.full:
            mark = self._journal.mark()
            with suppress(SyncUnavailable):
                self._kernel.begin(mark.descriptor, partial(self._synced, mark))
                return
        self._tend_due = False
        self._in_thread(self._journal.commit_and_tend, self._committed)

    def _write(self) -> None:
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), _BATCH))]
        self._written += batch
        if batch:
            self._journal.add(record for record, _ in batch)

    def _synced(self, mark: Mark, error: BaseException | None) -> None:
        if error is None:
            try:
                self._journal.committed(mark)
            except Exception as found:  # noqa: BLE001 - whatever it is, nothing may be promised
                error = found
        self._committed(error)

    def _committed(self, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self._busy = False
        served = self._serving
        self._committing, self._serving = [], []
        self._crowd = len(served)
        if self._tend_timer is None and (due_in := self._journal.due_in()) is not None:
            self._tend_timer = self._loop.call_later(due_in, self._tend)
        if self._awaited >= self._crowd >= _CROWD:
            self._commit()  # to have the disk at work while those who waited are told
            _call_all(served, None)
        else:
            _call_all(served, None)
            self._next()

    def _tend(self) -> None:
        """Have the head written, and what else is due, after a commit."""
        self._tend_timer = None
        self._tend_due = True
        self._loop.call_soon(self._commit)

    def _write_lazily(self) -> None:
        """Write what nobody waits for, and see to it that it is committed soon."""
        self._nap = None
        if not self._busy:
            now = self._loop.time()
            if self._written and now >= self._due_at:
                self._commit()
            elif self._queue:
                self._due_at = self._due_at if self._written else now + _LAZY_SECONDS
                try:
                    self._write()
                except Exception as error:  # noqa: BLE001 - as for a commit
                    self._fail(error)
        if self._queue or self._written:
            self._nap = self._loop.call_later(_NAP_SECONDS, self._write_lazily)

    def _fail(self, error: BaseException) -> None:
        """Refuse everything until the journal works again."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        text = f"the audit trail cannot be written: {reason}"
        lost = [*self._committing, *self._written, *self._queue]
        for record in self._all_beside():
            lost.append((record, record.beside))
            record.beside = None
        self._committing, self._written, self._serving = [], [], []
        self._queue.clear()
        self._awaited, self._crowd, self._begin_at = 0, 0, _NEVER
        self._refused += len(lost)
        _log.critical("%s; nothing is let through until it can", text)
        if self._ended is None:
            self._refusal = text
        self._busy = True
        self._pause = _FIRST_RETRY_SECONDS
        self._retry = self._loop.call_later(self._pause, self._restore, reason)
        _call_all([told for _, told in lost if told is not None], AuditUnavailable(text))
        if self._ended is not None:
            self._stop_retrying()

    def _stop_retrying(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
            self._busy = False
            self._next()

    def _restore(self, reason: str) -> None:
        self._retry = None
        refused = self._refused
        self._in_thread(
            partial(self._journal.restore, reason, refused),
            partial(self._restored, reason, refused),
        )

    def _restored(self, reason: str, refused: int, error: BaseException | None) -> None:
        if error is not None:
            _log.warning("the audit trail still cannot be written: %s", error)
            self._pause = min(2 * self._pause, _LAST_RETRY_SECONDS)
            self._retry = self._loop.call_later(self._pause, self._restore, reason)
            if self._ended is not None:
                self._stop_retrying()
            return
        _log.warning("the audit trail can be written again")
        self._refused -= refused
        self._busy = False
        if self._ended is None:
            self._refusal = None
        self._next()

    def _closed(self, error: BaseException | None) -> None:
        if error is not None:  # the next start finds a crash, and mends it
            _log.error("the audit trail could not be closed in good order: %s", error)
        if self._kernel is not None:
            self._kernel.close()
        if self._aside is not None:
            self._aside.shutdown(wait=False)
        for timer in (self._nap, self._sweep, self._tend_timer):
            if timer is not None:
                timer.cancel()
        self._kernel = self._aside = self._nap = self._sweep = self._tend_timer = None
        if self._ended is not None:
            self._ended.set_result(None)

    def _in_thread(
        self, work: Callable[[], object], then: Callable[[BaseException | None], None]
    ) -> None:
        """Have a thread do what blocks; `then` is told on the loop how it went."""
        future = self._loop.run_in_executor(self._aside, work)
        future.add_done_callback(lambda done: then(done.exception()))


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
