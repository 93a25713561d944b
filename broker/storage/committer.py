"""One thread that owns a SQLite connection and commits what waits together.

A durable commit costs an fsync, whatever it holds; so all the operations that have queued up
while the last commit was running share the next one. Each has its own savepoint: one that
fails takes nothing of its neighbours with it.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from broker.errors import StorageError
from broker.same_file import SameFile
from broker.storage.schema import explain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

_LARGEST_BATCH: Final = 256
_LONGEST_QUEUE: Final = 20_000


@dataclass(slots=True)
class _Job:
    """An operation that waits for its commit, and then its outcome."""

    operation: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """Hand the outcome to whoever waits; runs on the job's loop."""
        if self.future.done():
            return  # the caller has given up waiting
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Committer:
    """Run operations on a connection that it owns, in order, several to a commit.

    `explain` says what SQLite met, and what to do about it. Nothing is written once another file
    is in the place of the one at `path`, which is the connection's. `unwritable` is why the last
    commit that was to write something failed, if it did.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        explain: Callable[[sqlite3.Error], str] = explain,
    ) -> None:
        self._explain = explain
        self._connection = connection
        self._path = path
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._same = SameFile(path)
        self._closed = False
        self.unwritable: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"storage-{path.name}", daemon=True)
        self._thread.start()

    async def run(
        self, operation: Callable[[sqlite3.Connection], _T], *, writes: bool = False
    ) -> _T:
        """Return what `operation` returns once it is committed, and durable if it `writes`.

        An operation whose caller gives up waiting is committed all the same. Raises
        `StorageError` if it, or the commit, fails: then nothing of it has been stored.
        """
        if self._closed:
            raise StorageError(f"{self._path}: the store is closed")
        if self._queue.qsize() >= _LONGEST_QUEUE:
            raise StorageError(f"{self._path}: {_LONGEST_QUEUE} operations are waiting already")
        job = _Job(operation, writes, asyncio.get_running_loop().create_future())
        self._queue.put(job)
        result: _T = await job.future
        return result

    async def close(self) -> None:
        """Finish what is queued, then close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._commit(batch)
                _deliver(batch)
        finally:
            self._connection.close()

    def _next_batch(self) -> list[_Job] | None:
        """Wait for a job, then take all that wait with it; None once closed and empty."""
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        with suppress(queue.Empty):
            while len(batch) < _LARGEST_BATCH:
                job = self._queue.get_nowait()
                if job is None:
                    self._queue.put(None)  # nothing is queued after the end
                    break
                batch.append(job)
        return batch

    def _commit(self, batch: list[_Job]) -> None:
        """Run a batch in one transaction and note each job's outcome."""
        writes, failure = any(job.writes for job in batch), None
        try:
            if writes:
                self._same.require()
            self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            for job in batch:
                failure = self._run(job) or failure
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = self._explain(error)
            for job in batch:
                job.error = StorageError(f"{self._path}: {failure}")
        except StorageError as error:
            failure = str(error)
            for job in batch:
                job.error = StorageError(failure)
        if writes:
            self.unwritable = failure
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):  # the next BEGIN will say so
                self._connection.execute("ROLLBACK")

    def _run(self, job: _Job) -> str | None:
        """Run one job in its own savepoint; return what the database met, if that failed it.

        Raises sqlite3.Error if the transaction is lost.
        """
        met = None
        self._connection.execute("SAVEPOINT job")
        try:
            job.result = job.operation(self._connection)
        except Exception as error:
            if not self._connection.in_transaction and isinstance(error, sqlite3.Error):
                raise  # disk full or I/O error: SQLite has rolled everything back
            self._connection.execute("ROLLBACK TO job")
            job.error = error
            if isinstance(error, sqlite3.Error):
                explained = self._explain(error)
                job.error = StorageError(f"{self._path}: {explained}")
                # Not where the operation itself was wrong, such as against a constraint.
                met = explained if isinstance(error, sqlite3.OperationalError) else None
        self._connection.execute("RELEASE job")
        return met


def _deliver(batch: list[_Job]) -> None:
    """Hand a batch's outcomes over, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in batch:
        by_loop.setdefault(job.future.get_loop(), []).append(job)
    for loop, jobs in by_loop.items():
        with suppress(RuntimeError):  # the callers' loop has been closed
            loop.call_soon_threadsafe(_settle, jobs)


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()
