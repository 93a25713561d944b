"""What every command shares: options, output for people and for machines, and how to fail."""

from __future__ import annotations

import json as jsonlib
import os
import secrets
import sys
import tempfile
import traceback
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.settings import Settings


@dataclass(frozen=True, slots=True)
class Choices:
    """The options that every command takes, wherever on the command line they stood."""

    home: Path | None = None
    json: bool = False


_NARROW = 48

_choices: ContextVar[Choices] = ContextVar("choices", default=Choices())  # noqa: B039 - frozen


def start(home: Path | None, json: bool) -> None:  # noqa: FBT001 - as typer hands it over
    """Begin a command line with the options that stood before the command's name."""
    _choices.set(Choices(home, json))


def _note_home(value: Path | None) -> Path | None:
    if value is not None:
        _choices.set(replace(_choices.get(), home=value))
    return _choices.get().home


def _note_json(value: bool) -> bool:  # noqa: FBT001 - typer's callback signature
    if value:
        _choices.set(replace(_choices.get(), json=True))
    return _choices.get().json


def _home_option(callback: Callable[[Path | None], Path | None] | None = None) -> Any:
    return typer.Option(
        "--home",
        metavar="DIR",
        callback=callback,
        help="The broker's home directory (default: $BROKER_HOME, else ~/.agent-token-broker).",
        show_default=False,
    )


def _json_option(callback: Callable[[bool], bool] | None = None) -> Any:
    return typer.Option("--json", metavar="", callback=callback, help="Print JSON, for programs.")


RootHomeOption = Annotated[Path | None, _home_option()]
RootJsonOption = Annotated[bool, _json_option()]

HomeOption = Annotated[Path | None, _home_option(_note_home)]
"""`home: HomeOption = None` gives a command the option `--home`; pass it to `settings_from`."""

JsonOption = Annotated[bool, _json_option(_note_json)]
"""`json: JsonOption = False` gives a command the option `--json`; pass it to `emit`."""


def settings_from(home: Path | None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Return the settings of the broker at `home`, or of the default one.

    `overrides` are what the command line says, by dotted name (`{"gateway.port": 0}`).

    Raises:
        ConfigurationError: when broker.toml or the environment holds a mistake.
    """
    from broker.settings import load_settings

    return load_settings(home or _choices.get().home, overrides=overrides)


def wants_json(json: bool) -> bool:  # noqa: FBT001 - the option
    """Return whether the user asked for JSON, before or after the command's name."""
    return json or _choices.get().json


def emit(data: Any, human: Callable[[], None], json: bool) -> None:  # noqa: FBT001 - the option
    """Print `data` as JSON where the user asked for JSON; else let `human` print it."""
    if wants_json(json):
        typer.echo(jsonlib.dumps(data, indent=2, ensure_ascii=False))
    else:
        human()


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "None.") -> None:
    """Print aligned columns with their names in bold; `empty` is what to say of no rows."""
    body = [tuple(printable(cell) for cell in row) for row in rows]
    if not body:
        typer.echo(empty)
        return
    lines = [tuple(column.upper() for column in columns), *body]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo(typer.style(text.rstrip(), bold=number == 0))


def next_steps(*steps: tuple[str, str]) -> None:
    """Print what to do next: commands that work as they stand, each with what it does."""
    home = _choices.get().home
    if home is not None:
        steps = ((f"export BROKER_HOME={home.absolute()}", "mean this broker"), *steps)
    width = max(len(command) for command, _ in steps)
    typer.echo("\nNext:")
    for command, purpose in steps:
        if width <= _NARROW:
            typer.echo(f"  {typer.style(command.ljust(width), bold=True)}  {purpose}")
        else:
            typer.echo(f"  {typer.style(f'# {purpose}', dim=True)}")
            typer.echo(f"  {typer.style(command, bold=True)}")


def printable(text: str) -> str:
    """Return `text` with whatever could steer a terminal or fake a line escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def confirm(question: str) -> None:
    """Go on if whoever is at the terminal says yes; end the command otherwise."""
    from broker.errors import InvalidRequest

    if not sys.stdin.isatty():
        raise InvalidRequest("there is no terminal to ask at; say --yes to go on without")
    if not typer.confirm(question, err=True):
        raise typer.Abort


def fail(error: Exception | str, next_step: str | None = None) -> NoReturn:
    """Say on stderr what went wrong and what to do next, then end with status 1."""
    if _choices.get().json:
        typer.echo(jsonlib.dumps({"error": str(error), "next_step": next_step}), err=True)
    else:
        typer.echo(f"{typer.style('error:', fg='red', bold=True)} {error}", err=True)
        if next_step is not None:
            typer.echo(f"{typer.style('next:', fg='cyan', bold=True)}  {next_step}", err=True)
    raise typer.Exit(1)


def fail_unexpectedly(error: Exception) -> NoReturn:
    """Keep the traceback of a defect in a private file and say where; end with status 70.

    With BROKER_DEBUG=1 the traceback goes to stderr instead.
    """
    if os.environ.get("BROKER_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
        raise typer.Exit(70)
    incident = secrets.token_hex(4)
    place = _keep(incident, "".join(traceback.format_exception(error)))
    typer.echo(
        f"{typer.style('error:', fg='red', bold=True)} "
        f"something unexpected happened ({type(error).__name__}, incident {incident}).\n"
        f"{typer.style('next:', fg='cyan', bold=True)}  "
        f"the details are in {place}; please report them.",
        err=True,
    )
    raise typer.Exit(70)


def _keep(incident: str, details: str) -> Path:
    from broker.audit.redaction import redact_text
    from broker.files import create_private

    home = _choices.get().home
    folder = home if home is not None and home.is_dir() else Path(tempfile.mkdtemp())
    path = folder / f"crash-{incident}.log"
    create_private(path, redact_text(details).encode(errors="backslashreplace"))
    return path
