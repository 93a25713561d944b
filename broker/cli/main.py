"""The `broker` command: what it offers, in which order, and how it fails."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from broker.cli import (
    add,
    admin,
    agents,
    audit,
    credential,
    dev,
    doctor,
    init,
    leases,
    logs,
    output,
    policy,
    revoke,
    secret,
    serve,
    sessions,
    show,
    token,
)
from broker.errors import BrokerError

GROUPS: Final = (
    dev,
    init,
    add,
    token,
    credential,
    serve,
    show,
    sessions,
    leases,
    doctor,
    agents,
    logs,
    audit,
    policy,
    secret,
    revoke,
    admin,
)

PANELS: Final = {
    "First use": ("dev", "init", "add", "token", "doctor"),
    "Run": ("serve", "credential"),
    "See": ("services", "scopes", "agents", "sessions", "leases", "logs", "audit"),
    "Manage": ("policy", "secret", "revoke", "admin"),
}


HELP: Final = (
    "Agents should not hold keys.\n\n"
    "An agent proves what it is, asks for what its task needs, and gets a task token that "
    "lives for minutes. Its calls pass the gateway, which puts the real credential in.\n\n"
    "Start with `broker dev` to watch it work, or with `broker init` to set it up."
)


class BrokerCommands(TyperGroup):
    """List the commands in the order in which they are met; turn errors into advice."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands by panel."""
        order = [name for names in PANELS.values() for name in names]
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: order.index(name) if name in order else len(order))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a `BrokerError` is told in its own words, a defect by its number."""
        try:
            return super().invoke(ctx)
        except BrokerError as error:
            output.fail(error)
        except (typer.Exit, typer.Abort, typer.TyperException, EOFError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the last resort of every command
            output.fail_unexpectedly(error)


app = typer.Typer(
    name="broker",
    cls=BrokerCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if wanted:
        from importlib.metadata import version

        typer.echo(f"broker {version('agent-token-broker')}")
        raise typer.Exit


@app.callback(help=HELP)
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
    home: output.RootHomeOption = None,
    json: output.RootJsonOption = False,
) -> None:
    """Remember the options that stand before a command's name."""
    del version
    output.start(home, json)


def _arrange() -> None:
    panel_of = {name: panel for panel, names in PANELS.items() for name in names}
    for command in app.registered_commands:
        command.rich_help_panel = panel_of.get(command.name or "", "Other")
    for group in app.registered_groups:
        group.rich_help_panel = panel_of.get(group.name or "", "Other")


for group in GROUPS:
    group.register(app)
_arrange()


def main() -> None:
    """Run the `broker` command."""
    app(prog_name="broker")
