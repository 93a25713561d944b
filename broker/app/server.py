"""Run a broker: both listeners in one event loop, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.api.problems import report
from broker.app import descriptors
from broker.app.broker import open_broker
from broker.app.control import ControlServer
from broker.app.sessions import note_use
from broker.errors import SecretUnavailable, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from broker.app.broker import Broker
    from broker.app.listeners import Listeners
    from broker.app.worker import Worker

PURGE_EVERY: Final = 600.0
"""Seconds between two looks for replay claims and grants that have expired."""

GARBAGE_AT: Final = 50_000
"""Objects made and not yet dropped at which cycles are looked for among them. Requests under way
hold thousands: to look at those again and again took a third of the processor under load."""

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_LOG: Final = logging.getLogger(__name__)


async def run(
    listeners: Listeners,
    on_ready: Callable[[asyncio.Event], Awaitable[None]] | None = None,
    worker: Worker | None = None,
) -> None:
    """Serve on the listeners until SIGTERM or SIGINT, or until `on_ready` sets its event.

    Requests under way may then end within `settings.drain` seconds. SIGHUP reads policies and
    secrets again. `worker` is which of several processes this one is, if there are several.

    Raises:
        ConfigurationError: something must be mended before the broker can start.
        AuditUnavailable: the trail cannot be written.
        StorageError: the database cannot be read, or has forgotten revocations.
        Exception: what a part of the broker has failed with while it served.
    """
    settings = listeners.settings
    agents, others = descriptors.room(settings.gateway.connections)
    settings = replace(settings, gateway=replace(settings.gateway, connections=agents))
    try:
        async with open_broker(settings, worker) as broker, contextlib.AsyncExitStack() as stack:
            stop = _catch_signals(broker, alone=worker is None)
            for work in (
                *(() if broker.tally is None else (broker.tally.keep_published(),)),
                broker.policies.watch(),
                broker.follower.follow(),
                broker.revocations.follow(),
                broker.reaper.run(),
                broker.proxied.look_after(),
                note_use(broker.grants, broker.storage),
                broker.limiter.counts.keep(),
                _purge(broker),
                _log_in_to_vault(broker),
            ):
                stack.push_async_callback(_cancel, _begin(work, stop))
            stack.push_async_callback(broker.proxied.close)
            await broker.gateway.start(listeners.gateway)
            stack.push_async_callback(broker.gateway.close, settings.drain)
            control = ControlServer(broker.control, settings.drain, others)
            await control.start(listeners.control)
            stack.push_async_callback(control.close)
            if broker.admin is not None and listeners.admin is not None:
                admin = ControlServer(broker.admin, settings.drain)
                await admin.start(listeners.admin)
                stack.push_async_callback(admin.close)
                if worker is None or worker.number == 1:
                    _LOG.info("admin API %s", settings.admin_url)
            stack.enter_context(_little_garbage_collection())
            if worker is None:
                urls = settings.control_url, settings.gateway_url
                _LOG.info("ready: control plane %s, gateway %s", *urls)
            else:
                worker.ready()
            if on_ready is not None:
                await on_ready(stop)
            await stop.wait()
            if worker is None:
                _LOG.info("stopping; requests under way have %d s to end", settings.drain)
    finally:
        listeners.close()


@contextlib.contextmanager
def _little_garbage_collection() -> Iterator[None]:
    """Spare what is there by now, which stays, and look at what is new less often."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AT, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _catch_signals(broker: Broker, *, alone: bool) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; a second one is not waited for.

    One of several workers does wait: its supervisor passes on what the worker may have heard by
    itself, and knows how to end it.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end() -> None:
        stop.set()
        for number in _STOPS if alone else ():
            loop.remove_signal_handler(number)

    def reload() -> None:
        _LOG.info("reading policies and secrets again")
        broker.secrets.invalidate()
        broker.policies.reload()

    for number in _STOPS if alone else (signal.SIGTERM,):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


async def _purge(broker: Broker) -> None:
    while True:
        try:
            await broker.storage.purge(time.time())
        except StorageError as error:
            _LOG.warning("expired records could not be removed: %s", error)
        await asyncio.sleep(PURGE_EVERY)


async def _log_in_to_vault(broker: Broker) -> None:
    """Log in before the first secret is needed: a wrapped secret_id does not wait for long."""
    if broker.vault is None:
        return
    try:
        await broker.vault.start()
    except SecretUnavailable as error:
        _LOG.warning("Vault: %s", error)


def _begin(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> asyncio.Task[None]:
    """Have work go on beside the others, and the broker end if it fails for good.

    A broker that serves on while nobody reads revocations, ends credentials or keeps places would
    be worse than none; another is started in its place.
    """

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            report(error, "a part of the broker")
            _LOG.critical("without that part the broker ends, to be started anew")
            stop.set()

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
