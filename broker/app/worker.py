"""One of several processes that serve: what it is told by its supervisor, and what it tells it."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broker.app.scoreboard import Scoreboard
    from broker.settings import Settings

GRACE: Final = 10.0
"""Seconds that a process may take to end, beyond those that requests under way have."""

MAIN: Final = "main"
"""The writer of the broker's audit records: of its only process, or of its first worker."""


def writer(number: int) -> str:
    """Return by which name the worker `number` writes to the trail: `main`, `main.2`, ..."""
    return MAIN if number == 1 else f"{MAIN}.{number}"


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that serves beside others; `number` counts from 1.

    `settings` have the ports that the supervisor has taken. `lifeline` is the reading end of a
    pipe that the supervisor holds open as long as it lives; `report` the writing end of one on
    which it waits to hear that the worker is ready.
    """

    number: int
    settings: Settings
    scoreboard: Scoreboard
    lifeline: int
    report: int

    @property
    def name(self) -> str:
        """How it is called in logs."""
        return f"worker {self.number}"

    @property
    def writer(self) -> str:
        """By which name it writes to the trail."""
        return writer(self.number)

    def ready(self) -> None:
        """Tell the supervisor that connections are accepted from now on."""
        with suppress(BrokenPipeError):  # it is gone; the lifeline says so
            os.write(self.report, b"\n")
        os.close(self.report)

    def end_with_supervisor(self, patience: float) -> None:
        """Have this process end when its supervisor does, however that ended.

        It is told to stop, as by SIGTERM, and ends by force after `patience` seconds more.
        """

        def wait() -> None:
            os.read(self.lifeline, 1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(patience)
            os._exit(1)

        threading.Thread(target=wait, name="lifeline", daemon=True).start()
