"""Have the kernel sync a file while the event loop goes on, with no thread in between.

`fdatasync` blocks, and a thread that calls it takes turns with the loop for the interpreter: two
changes of context and a wait for each sync, which cost as much as the sync. Linux does it by
itself when asked by io_submit(2) (`IOCB_CMD_FDSYNC`, Linux 4.18, allowed by the seccomp profiles
of Docker and Kubernetes, which io_uring is not).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Synced = Callable[[OSError | None], None]

_AT_ONCE: Final = 4
"""Syncs under way at the same time; the trail has one."""

_SIGN: Final = 1 << 63
_UNSIGNED: Final = 1 << 64


class SyncUnavailable(Exception):
    """The kernel does not sync by itself: another system, an old kernel, a sandbox, that file."""


class KernelSync:
    """Sync files by the kernel's asynchronous input and output; tell an event loop when done.

    Raises `SyncUnavailable` where the kernel does not offer it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        try:
            # It asks the kernel when it is imported, and there is no such thing on other systems.
            from caio.linux_aio import Context, Operation  # noqa: PLC0415

            self._context = Context(max_requests=_AT_ONCE)
        except (ImportError, OSError, RuntimeError, SystemError) as error:
            raise SyncUnavailable(str(error)) from error
        self._operation: Final = Operation
        self._event: Final = self._context.fileno
        loop.add_reader(self._event, self._completed)

    def begin(self, descriptor: int, synced: Synced) -> None:
        """Begin to sync a file's data, as `fdatasync` does; call `synced` on the loop at the end.

        `synced` receives None, or the error that the disk gave. Raises `SyncUnavailable` if the
        kernel does not take it; `fdatasync` may say more. The file may be written to, and closed,
        meanwhile.
        """
        operation = self._operation.fdsync(descriptor)
        operation.set_callback(partial(_tell, synced))
        try:
            accepted = self._context.submit(operation)
        except Exception as error:  # of many kinds, which hold a text and no error number
            raise SyncUnavailable(str(error)) from error
        if accepted != 1:
            raise SyncUnavailable("the kernel did not take the sync")

    def close(self) -> None:
        """Stop listening. What is under way is no longer told of."""
        self._loop.remove_reader(self._event)

    def _completed(self) -> None:
        with suppress(BlockingIOError):  # taken together with the one before
            self._context.poll()
        while self._take() == _AT_ONCE:  # there may be more
            pass

    def _take(self) -> int:
        """Tell of some that have ended, if any has; return how many."""
        while True:
            try:
                return int(self._context.process_events(max_requests=_AT_ONCE))
            except SystemError as error:  # the library's, with an error number
                if error.args[0] != errno.EINTR:  # a signal came, and there was nothing to take
                    raise


def _tell(synced: Synced, result: int) -> None:
    # The kernel's signed result, of which the library makes an unsigned one: 0, or -errno.
    number = -(result - _UNSIGNED if result >= _SIGN else result)
    synced(OSError(number, os.strerror(number)) if number else None)
