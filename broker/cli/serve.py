"""`broker serve`: run the control plane and the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import output

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from broker.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve")(serve)


def serve(
    *,
    control_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The control plane's; 0 for a free one.")
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The gateway's; 0 for a free one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that serve (default: 1).")
    ] = None,
    home: output.HomeOption = None,
) -> None:
    """Run the control plane and the gateway until Ctrl-C; SIGHUP reads policies again."""
    from broker.app.listeners import bind
    from broker.app.logs import configure_logging
    from broker.app.server import run
    from broker.keys.process import harden_process

    harden_process()
    chosen = {"control.port": control_port, "gateway.port": gateway_port, "workers": workers}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    settings = output.settings_from(home, overrides)
    configure_logging(settings.log_level)
    if settings.workers == 1:
        run_on_uvloop(run(bind(settings)))
    else:
        _serve_by_several(settings)


def _serve_by_several(settings: Settings) -> None:
    """Run workers, and in each of them, from here on, the broker."""
    from broker.app.listeners import bind
    from broker.app.logs import configure_logging
    from broker.app.server import run
    from broker.app.supervisor import supervise
    from broker.app.worker import GRACE
    from broker.keys.process import harden_process

    worker = supervise(settings)
    if worker is not None:
        worker.end_with_supervisor(settings.drain + GRACE)
        harden_process()
        configure_logging(settings.log_level, worker.name)
        run_on_uvloop(run(bind(worker.settings, shared=True), worker=worker))


def run_on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """Run a broker on uvloop, whose speed the gateway is built on."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
