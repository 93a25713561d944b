"""`broker secret`: keep secrets in the embedded store. Values come from a prompt or from stdin."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.secrets.embedded import EmbeddedStore
    from broker.settings import Settings
    from providers.base import Secret

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]

_NO_VALUES: Final = (
    "a secret's value is never taken from the command line, where it would stay in the shell's "
    "history and be shown to every user by ps"
)
_HOW: Final = (
    "run `broker secret {verb} NAME` and type or paste the value when asked, or pipe it in: "
    "`broker secret {verb} NAME < FILE`. Replace a value that was typed here: it is exposed"
)


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(
        help="Keep secrets in the embedded store: put, list, rotate, rm.", no_args_is_help=True
    )
    # What people type after the name is taken, so that it can be refused without being printed.
    surplus = {"allow_extra_args": True}
    group.command("put", context_settings=surplus)(put)
    group.command("list")(show)
    group.command("rotate", context_settings=surplus)(rotate)
    group.command("rm")(remove)
    app.add_typer(group, name="secret")


def put(
    context: typer.Context,
    name: NameArgument,
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Store a secret, or a new version of one; the value is asked for, or read from stdin.

    One line ending at the end of what is piped in is not part of the value.
    """
    _refuse_values("put", name, context.args)
    _change(home, "put", name, lambda store, value: store.put(name, value), json=json)


def rotate(
    context: typer.Context,
    name: NameArgument,
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Replace a secret's value with a new one, which is asked for, or read from stdin."""
    _refuse_values("rotate", name, context.args)
    _change(home, "rotate", name, lambda store, value: store.rotate(name, value), json=json)


def show(home: output.HomeOption = None, *, json: output.JsonOption = False) -> None:
    """List secrets by name and version; values are never shown."""
    settings = output.settings_from(home)
    with closing(_open(settings)) as store:
        stored = store.list()
    data: list[dict[str, Any]] = [
        {
            "name": each.name,
            "reference": f"embedded:{each.name}",
            "version": each.version,
            "stored_at": _utc(each.created_at),
            "versions": list(each.versions),
        }
        for each in stored
    ]

    def human() -> None:
        rows = [
            (
                item["name"],
                str(item["version"]),
                item["stored_at"],
                ", ".join(map(str, item["versions"])),
            )
            for item in data
        ]
        output.table(
            ("name", "version", "stored", "versions kept"),
            rows,
            "No secrets: broker secret put NAME",
        )

    output.emit(data, human, json)


def remove(
    name: NameArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Forget a secret, all its versions; what uses it fails from then on."""
    from broker.app.trail import recorded

    settings = output.settings_from(home)
    with closing(_open(settings)) as store:
        if name not in {each.name for each in store.list()}:
            store.remove(name)  # says that there is none, and which name is near
        if not yes:
            users = ", ".join(_users(settings, name))
            warning = f"It is used by: {users}. " if users else ""
            output.confirm(f"{warning}Forget {name} and all its versions?")
        with recorded(settings, "secret.remove", f"embedded:{name}"):
            versions = store.remove(name)
    output.emit(
        {"name": name, "removed_versions": versions},
        lambda: typer.echo(f"{name} is forgotten: {versions} version(s)."),
        json,
    )


def _change(
    home: Any, verb: str, name: str, store_it: Callable[[EmbeddedStore, Secret], int], *, json: bool
) -> None:
    from broker.app.trail import recorded
    from broker.secrets.reader import FRESH_FOR
    from providers.http_api import FRESH_FOR as REUSED_FOR

    settings = output.settings_from(home)
    with closing(_open(settings)) as store:
        value = _ask(name)
        with recorded(settings, f"secret.{verb}", f"embedded:{name}"):
            version = store_it(store, value)
    reference = f"embedded:{name}"

    def human() -> None:
        typer.echo(f"{name} is stored: version {version}.")
        if verb == "rotate":
            typer.echo(f"A running broker uses it within {FRESH_FOR + REUSED_FOR:.0f} s.")
        else:
            typer.echo(f'A policy refers to it as "{reference}".')

    output.emit({"name": name, "reference": reference, "version": version}, human, json)


def _open(settings: Settings) -> EmbeddedStore:
    from broker.app.home import open_keys, open_store

    return open_store(settings, open_keys(settings).master)


def _ask(name: str) -> Secret:
    from broker.secrets.base import MAX_SECRET_BYTES
    from broker.secrets.file import without_line_ending
    from providers.base import Secret

    if sys.stdin.isatty():
        # typer.prompt would show the prompt before it stops the terminal's echo.
        value = getpass(f"Value of {name} (not shown): ").encode(errors="surrogateescape")
    else:
        # Enough to see that it is too long, and no more: stdin may be endless.
        value = without_line_ending(sys.stdin.buffer.read(MAX_SECRET_BYTES + 3))
    if value.strip() != value:
        typer.echo("note: the value begins or ends with white space, which is kept", err=True)
    return Secret(value)


def _refuse_values(verb: str, name: str, surplus: list[str]) -> None:
    from broker.audit.redaction import redact_text

    if surplus or "=" in name or redact_text(name) != name:
        output.fail(_NO_VALUES, _HOW.format(verb=verb))


def _users(settings: Settings, name: str) -> list[str]:
    """Return the services whose policy refers to the secret; none if the policy is broken."""
    from broker.app.policies import home_policy
    from broker.errors import PolicyError

    try:
        services = home_policy(settings).services
    except PolicyError:
        return []
    return [
        service.name
        for service in services.values()
        for reference in service.plugin.secret_references(service.config)
        if reference.partition("@")[0] == f"embedded:{name}"
    ]


def _utc(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
