"""`broker dev`: the whole broker on temporary state, and the main job played once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final, cast

import typer

from broker.cli import output
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.app.listeners import Listeners

AGENT: Final = "demo-agent"

_SETTINGS: Final = """\
[control]
port = {control}

[gateway]
port = {gateway}
"""

_POLICY: Final = """\
# The demo API stands for any API that wants a key. Change this file while the broker runs: it
# takes effect at once, and a mistake is refused, with its place, in what the broker prints.
identity_sources:
  local:
    type: local

services:
  orders:
    provider: http_api
    base_url: http://127.0.0.1:{port}
    credential: {{type: bearer, secret: "embedded:orders-api"}}
    # The demo API is on this machine and speaks plain http; a real one needs neither line.
    allow_private: true
    insecure_http: true

scopes:
  orders.read:
    description: See orders
    service: orders
    allow: ["GET /v1/orders/**"]
  orders.refund:
    description: Give money back
    service: orders
    allow: ["POST /v1/refunds"]
    risk: high
    reason: required
    max_ttl: 5m

agents:
  demo-agent:
    trust:
      - source: local
        claims: {{sub: demo-agent}}
    scopes: [orders.read, orders.refund]
"""


@dataclass(frozen=True, slots=True)
class DemoApi:
    """The running demo API: where it listens, and the key that it wants."""

    port: int
    key: str

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("dev")(dev)


def dev(
    *,
    once: Annotated[
        bool, typer.Option("--once", metavar="", help="End after the play; status 1 if it fails.")
    ] = False,
    control_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Default: 8700, or a free one.")
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Default: 8701, or a free one.")
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Watch it work: a whole broker on temporary state, and the main job played once."""
    # Until the broker hears it, this signal would end the process and leave the state behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with _demo_home(home) as place, _demo_api() as starting:
        # While the demo API starts, this process imports what the broker is made of.
        from broker.app.logs import configure_logging
        from broker.app.server import run
        from broker.cli.play import Stage, play
        from broker.cli.serve import run_on_uvloop
        from broker.keys.process import harden_process

        harden_process()
        configure_logging("warning")
        stage = Stage(quiet=json)
        listeners = _listeners(place, control_port, gateway_port)
        settings = listeners.settings
        api = starting()
        _furnish(listeners, api)

        async def on_ready(stop: asyncio.Event) -> None:
            if not json:
                _introduce(listeners, api)
            await play(stage, settings, AGENT, api.url)
            if json:
                output.emit({"passed": stage.passed, "steps": stage.steps}, lambda: None, json)
            if once or not stage.passed:
                stop.set()
            elif not json:
                _invite(listeners, temporary=home is None)

        run_on_uvloop(run(listeners, on_ready))
    if not stage.passed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _demo_home(chosen: Path | None) -> Iterator[Path]:
    """Give a directory for the demo: `chosen`, which is kept, or a temporary one."""
    if chosen is not None:
        place = chosen.expanduser().absolute()
        if place.exists() and any(place.iterdir()):
            raise ConfigurationError(
                f"{place}: is not empty; `broker dev` sets up a new broker, and `broker serve "
                f"--home {place}` runs one that is there"
            )
        yield place
        return
    place = Path(tempfile.mkdtemp(prefix="broker-dev-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def _demo_api() -> Iterator[Callable[[], DemoApi]]:
    """Run the demo API in a process of its own; give what waits until it listens.

    It gets a new key through a pipe: what stands in argv or the environment, others can see.
    """
    key = "demo_" + secrets.token_urlsafe(24)
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.cli.demo_api"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        start_new_session=True,  # Ctrl-C is for the broker, which ends the demo API itself
    )
    with process:
        to_api, from_api = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        to_api.write(f"{key}\n")
        to_api.flush()

        def ready() -> DemoApi:
            port = from_api.readline().strip()
            if not port:
                raise ConfigurationError("the demo API could not be started")
            return DemoApi(int(port), key)

        yield ready
        to_api.close()


def _listeners(place: Path, control_port: int | None, gateway_port: int | None) -> Listeners:
    from broker.app.listeners import bind
    from broker.settings import load_settings

    chosen = {"control.port": control_port, "gateway.port": gateway_port}
    given = {name: port for name, port in chosen.items() if port is not None}
    # Not the environment: settings of another broker have no part in a demo.
    try:
        return bind(load_settings(place, {}, given))
    except ConfigurationError:
        if len(given) == len(chosen):
            raise
        return bind(load_settings(place, {}, dict.fromkeys(chosen, 0) | given))


def _furnish(listeners: Listeners, api: DemoApi) -> None:
    from broker.app.home import Places, create_home, enrol_agent, open_keys, open_store
    from broker.files import create_private
    from providers.base import Secret

    settings = listeners.settings
    places = Places(settings.home)
    create_home(settings)
    ports = _SETTINGS.format(control=settings.control.port, gateway=settings.gateway.port)
    create_private(places.settings, ports.encode())
    create_private(places.policies / "demo.yaml", _POLICY.format(port=api.port).encode())
    store = open_store(settings, open_keys(settings).master)
    try:
        store.put("orders-api", Secret(api.key.encode()))
    finally:
        store.close()
    asyncio.run(enrol_agent(settings, AGENT))


def _introduce(listeners: Listeners, api: DemoApi) -> None:
    settings = listeners.settings
    typer.echo(typer.style("agent-token-broker, on temporary state", bold=True))
    for name, text in (
        ("control plane", settings.control_url),
        ("gateway", settings.gateway_url),
        ("demo API", f"{api.url} (a process of its own; only the broker has its key)"),
        ("home", str(settings.home)),
    ):
        typer.echo(f"   {name:<14}{text}")


def _invite(listeners: Listeners, *, temporary: bool) -> None:
    settings = listeners.settings
    program = Path(sys.argv[0]).absolute()
    found = shutil.which("broker")
    known = found is not None and Path(found).absolute() == program
    path = "" if known else f' PATH="{program.parent}:$PATH"'
    typer.echo(
        f"\n{typer.style('The broker stays up.', bold=True)} In another terminal:\n\n"
        f'   export BROKER_HOME="{settings.home}"{path}\n'
        "   TOKEN=$(broker token --scope orders.read)\n"
        '   curl -H "Authorization: Bearer $TOKEN" '
        f"{settings.gateway_url}/orders/v1/orders/ord_1001\n\n"
        "   TOKEN=$(broker token --scope orders.refund --reason 'ord_1002 came broken')\n"
        '   curl -X POST -H "Authorization: Bearer $TOKEN" '
        f"{settings.gateway_url}/orders/v1/refunds\n\n"
        "   broker logs -f\n"
        "   broker policy explain --agent demo-agent --scope orders.read DELETE /v1/orders/1\n"
        "   broker add stripe\n\n"
        f"Ctrl-C ends it{f' and removes {settings.home}' if temporary else ''}."
    )
