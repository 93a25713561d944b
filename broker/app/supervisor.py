"""Run several workers: decide about the ports once, replace a worker that dies, end them all.

The supervisor serves nothing and opens nothing of the home. It takes the ports, forks the
workers, which open the home each for itself, and waits. The first worker starts alone: whatever
keeps the broker from starting is said once, and the database is made or migrated by one. Each
of the others must come up as well before the broker is ready; from then on a worker that dies
is replaced for ever, at ever longer intervals while it does not last.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from broker.app.listeners import reserve
from broker.app.scoreboard import SUPERVISOR, Scoreboard
from broker.app.tally import publish
from broker.app.worker import GRACE, Worker
from broker.errors import ConfigurationError
from broker.keys.sealing import load_master_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.app.listeners import Listeners
    from broker.settings import Settings

STARTING: Final = 60.0
"""Seconds after which a worker that is not ready is taken for one that never will be."""

LASTING: Final = 60.0
"""Seconds after which a worker has lasted: should it die later, another follows at once."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_MOST_DOUBLINGS: Final = 10
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_HEARD: Final = (*_STOPS, signal.SIGHUP, signal.SIGCHLD)
_LOG: Final = logging.getLogger(__name__)


def supervise(settings: Settings) -> Worker | None:
    """Run `settings.workers` processes until SIGTERM or SIGINT, which let requests end.

    Returns several times: in each worker what it is, for it to serve and then to end; and in
    the supervisor None, when all of them have ended. A second SIGTERM or SIGINT is not waited
    for. SIGHUP is passed on.

    Raises:
        ConfigurationError: a port cannot be had, or a worker cannot start, which has said why.
    """
    if sys.platform != "linux":
        raise ConfigurationError("several workers need Linux; set workers to 1")
    if settings.master_key_source == "environment":
        # Out of the environment, into memory that the workers inherit, as in a single process.
        load_master_key("environment", settings.home)
    return _Supervisor(reserve(settings)).run()


@dataclass(slots=True)
class _Seat:
    """A worker's place, and the process that has it now, if any."""

    number: int
    pid: int | None = None
    report: int | None = None
    ready: bool = False
    started_at: float = 0.0
    start_at: float = math.inf
    late_at: float = math.inf
    deaths: int = 0
    """How many in a row did not last."""


class _Supervisor:
    def __init__(self, listeners: Listeners) -> None:
        self._listeners: Final = listeners
        self._settings: Final = listeners.settings
        self._seats: Final = [_Seat(number + 1) for number in range(self._settings.workers)]
        self._scoreboard: Final = Scoreboard(self._settings.workers)
        self._lifeline: Final = os.pipe()
        self._wakeup: Final = os.pipe()
        self._announced = False
        self._failure: str | None = None
        self._kill_at: float | None = None
        self._restarts = 0

    def run(self) -> Worker | None:
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, lambda *_: None)  # to be heard of by the descriptor above
        self._seats[0].start_at = 0.0
        while True:
            for seat in self._seats:
                worker = self._start(seat) if self._is_due(seat) else None
                if worker is not None:
                    return worker
            if self._kill_at is not None and not any(seat.pid for seat in self._seats):
                break
            self._wait()
        self._listeners.close()
        if self._failure is not None:
            raise ConfigurationError(self._failure)
        _LOG.info("all workers have ended")
        return None

    # Starting

    def _is_due(self, seat: _Seat) -> bool:
        return seat.pid is None and self._kill_at is None and seat.start_at <= time.monotonic()

    def _start(self, seat: _Seat) -> Worker | None:
        """Fork a worker; return what it is in the new process, and None in this one."""
        sys.stdout.flush()
        sys.stderr.flush()
        seat.started_at, seat.start_at = time.monotonic(), math.inf
        with _signals_blocked():
            try:
                pid, report, reported = _fork()
            except OSError as error:  # no memory, or too many processes: that may pass
                self._lose(seat, f"cannot be started: {error.strerror}")
                return None
            if pid == 0:
                self._leave(report)
                return self._worker(seat, reported)
        os.close(reported)
        seat.pid, seat.report, seat.ready = pid, report, False
        seat.late_at = seat.started_at + STARTING
        return None

    def _worker(self, seat: _Seat, report: int) -> Worker:
        return Worker(seat.number, self._settings, self._scoreboard, self._lifeline[0], report)

    def _leave(self, report: int) -> None:
        """Drop, in a new process, what is the supervisor's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Ctrl-C is for the supervisor, which passes it on as SIGTERM, and policies are read anyway.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._listeners.close()
        reports = [seat.report for seat in self._seats if seat.report is not None]
        for descriptor in (self._lifeline[1], *self._wakeup, report, *reports):
            os.close(descriptor)

    # Waiting

    def _wait(self) -> None:
        """Wait until something happens, and see to it."""
        reports = {seat.report: seat for seat in self._seats if seat.report is not None}
        readable, _, _ = select.select([self._wakeup[0], *reports], [], [], self._patience())
        for descriptor in readable:
            if descriptor in reports:
                self._hear(reports[descriptor])
        if self._wakeup[0] in readable:
            self._heed(os.read(self._wakeup[0], 1024))
        for seat in self._seats:
            self._reap(seat)
            if seat.pid is not None and not seat.ready and time.monotonic() >= seat.late_at:
                _LOG.error("worker %d was not ready within %.0f s", seat.number, STARTING)
                seat.late_at = math.inf
                os.kill(seat.pid, signal.SIGKILL)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill()

    def _patience(self) -> float | None:
        earliest = self._kill_at or math.inf
        for seat in self._seats:
            if seat.pid is None and self._kill_at is None:
                earliest = min(earliest, seat.start_at)
            elif seat.pid is not None and not seat.ready:
                earliest = min(earliest, seat.late_at)
        return None if earliest == math.inf else max(0.0, earliest - time.monotonic())

    def _hear(self, seat: _Seat) -> None:
        """Take a worker's word that it is ready, or the end of its pipe."""
        report, seat.report = seat.report, None
        if report is None:
            return
        seat.ready = os.read(report, 1) != b""
        os.close(report)
        if not seat.ready:
            return  # it has died, and is about to be reaped
        if self._announced:
            _LOG.info("worker %d is ready", seat.number)
        elif seat is self._seats[0]:
            for other in self._seats[1:]:
                other.start_at = 0.0
        if not self._announced and all(one.ready for one in self._seats):
            self._announced = True
            urls = self._settings.control_url, self._settings.gateway_url
            _LOG.info("ready: control plane %s, gateway %s, %d workers", *urls, len(self._seats))
        self._publish()

    def _heed(self, signals: bytes) -> None:
        for number in signals:
            if number == signal.SIGHUP:
                self._pass_on(signal.SIGHUP)
            elif number in _STOPS and self._kill_at is not None:
                _LOG.warning("told to stop once more; requests under way are broken off")
                self._kill()
            elif number in _STOPS:
                self._stop()

    # Ending

    def _stop(self) -> None:
        if self._announced:
            _LOG.info("stopping; requests under way have %d s to end", self._settings.drain)
        self._kill_at = time.monotonic() + self._settings.drain + GRACE
        self._listeners.close()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.pid is not None and (seat.ready or number != signal.SIGHUP):
                with suppress(ProcessLookupError):
                    os.kill(seat.pid, number)

    def _kill(self) -> None:
        for seat in self._seats:
            if seat.pid is not None:
                _LOG.error("worker %d is ended by force", seat.number)
        self._pass_on(signal.SIGKILL)
        self._kill_at = math.inf

    def _reap(self, seat: _Seat) -> None:
        if seat.pid is None:
            return
        pid, status = os.waitpid(seat.pid, os.WNOHANG)
        if pid == 0:
            return
        if seat.report is not None:
            self._hear(seat)
        seat.pid = None
        if self._kill_at is None:
            self._lose(seat, f"(process {pid}) {_how(os.waitstatus_to_exitcode(status))}")

    def _lose(self, seat: _Seat, how: str) -> None:
        """Have another worker take a seat; but nothing is tried again before the first start."""
        lasted = seat.ready and time.monotonic() - seat.started_at >= LASTING
        seat.ready = False
        if not self._announced:
            self._failure = (
                f"worker {seat.number} {how} before it was ready; mend what it has said above "
                "and start the broker again"
            )
            self._stop()
            return
        seat.deaths = 0 if lasted else seat.deaths
        pause = _pause(seat.deaths)
        seat.deaths += 1
        self._restarts += 1
        seat.start_at = time.monotonic() + pause
        when = f"in {pause:.1f} s" if pause else "at once"
        _LOG.error("worker %d %s; another is started %s", seat.number, how, when)
        self._publish()

    def _publish(self) -> None:
        """Say for `/metrics` and `/readyz` how many workers there are."""
        serving = GaugeMetricFamily("broker_workers", "Workers that serve.")
        serving.add_metric((), sum(seat.ready for seat in self._seats))
        restarts = CounterMetricFamily("broker_worker_restarts", "Workers that died.")
        restarts.add_metric((), self._restarts)
        publish(self._scoreboard, SUPERVISOR, (serving, restarts))


def _fork() -> tuple[int, int, int]:
    """Fork; return in both processes the child's id or 0, and the two ends of a new pipe."""
    report, reported = os.pipe()
    try:
        return os.fork(), report, reported
    except OSError:
        os.close(report)
        os.close(reported)
        raise


def _pause(deaths: int) -> float:
    """Return how many seconds to wait before another worker, after so many that did not last."""
    if deaths == 0:
        return 0.0
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(deaths - 1, _MOST_DOUBLINGS))


def _how(code: int) -> str:
    if code < 0:
        known = {one.value: one.name for one in signal.Signals}  # few of the real-time ones
        return f"was ended by {known.get(-code, f'signal {-code}')}"
    return f"ended with status {code}"


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold signals back, so that a new process does not take its supervisor's for its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
