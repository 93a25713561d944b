"""`broker logs`: what agents did, and what was refused."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from broker.cli import output
from broker.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.audit.query import Event

_DECISIONS: Final = ("allow", "deny", "error")
_POLL_SECONDS: Final = 0.2


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("logs")(logs)


def logs(  # noqa: PLR0913 - each is an option
    *,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Of this agent.")] = None,
    service: Annotated[str | None, typer.Option(metavar="NAME", help="With this service.")] = None,
    decision: Annotated[
        str | None, typer.Option(metavar="WORD", help="With this decision: allow, deny or error.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From 2026-03-15T10:00:00Z, or 15m ago, on.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="The last so many; 0 for all.")] = 50,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", metavar="", help="Go on with what happens now.")
    ] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Show what agents did and what was refused; with --json, one record a line."""
    from broker.app.home import Places
    from broker.audit.query import Filter, Log

    if decision not in {None, *_DECISIONS}:
        raise ConfigurationError(
            f"--decision is {decision!r}; expected {', '.join(_DECISIONS)}"
            f"{did_you_mean(str(decision), _DECISIONS)}"
        )
    wanted = Filter(
        agent=agent.removeprefix("agent:") if agent else None,
        service=service,
        decision=decision,
        since=_moment("--since", since),
        until=_moment("--until", until),
    )
    directory = Places(output.settings_from(home).home).audit
    if not directory.is_dir():
        raise ConfigurationError(f"{directory}: there is no audit trail; run `broker init` first")
    log = Log(directory, wanted, paired=not json)
    with suppress(KeyboardInterrupt):  # the way to end --follow
        _print(log.history(limit or None), json=json)
        while follow:
            time.sleep(_POLL_SECONDS)
            _print(log.news(), json=json)


def _print(events: Iterable[Event], *, json: bool) -> None:
    import orjson

    from broker.audit.render import event_line

    for event in events:
        typer.echo(orjson.dumps(event.fields) if json else event_line(event))


def _moment(option: str, text: str | None) -> str | None:
    """Return a time as the trail writes it: from RFC 3339, or from how long ago it was."""
    from broker.settings.values import duration

    if text is None:
        return None
    try:
        moment = datetime.now(UTC) - timedelta(seconds=duration(text))
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigurationError(
                f"{option} is {text!r}; expected a time such as 2026-03-15T10:00:00Z, or how "
                "long ago it was, such as 15m, 2h or 7d"
            ) from None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
