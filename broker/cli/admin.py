"""`broker admin token`: make, list and revoke the tokens that the admin API takes."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from broker.cli import output
from broker.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.model import AdminToken
    from broker.settings import Settings
    from broker.storage.base import AdminTokens

_T = TypeVar("_T")

FileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write it into a new private file, not to the screen."),
]

CREATE: Final = "admin_token.create"
REVOKE: Final = "admin_token.revoke"


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(help="Let programs set policy through the admin API.", no_args_is_help=True)
    tokens = typer.Typer(help="Tokens of administrators.", no_args_is_help=True)
    tokens.command("create")(create)
    tokens.command("list")(listed)
    tokens.command("revoke")(revoke)
    group.add_typer(tokens, name="token")
    app.add_typer(group, name="admin")


def create(  # noqa: PLR0913 - each is an option
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for, as in terraform.")],
    *,
    expires: Annotated[str, typer.Option(metavar="TIME", help="After how long, such as 30d.")],
    can: Annotated[
        str, typer.Option(metavar="LIST", help="What for: policy:read, policy:write, or both.")
    ],
    to: FileOption = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Make a token and show it, this once: only its digest is kept."""
    from broker.administrators import new_token
    from broker.app.trail import acting_user, recorded
    from broker.files import create_private
    from broker.settings.values import duration

    settings = _settings(home)
    try:
        lifetime = duration(expires)
    except ValueError as error:
        raise InvalidRequest(f"--expires is {expires!r}; expected {error}") from None
    permissions = [one.strip() for one in can.split(",")]
    token, kept = new_token(name, permissions, lifetime, by=acting_user(), now=time.time())
    text = token.reveal().decode()
    detail = f"{name} ({kept.id}): {' '.join(kept.permissions)}, until {_utc(kept.expires_at)}"
    with recorded(settings, CREATE, detail), ExitStack() as undo:
        if to is not None:  # first: a token that nobody can be given must not be good
            create_private(to, f"{text}\n".encode())
            undo.callback(to.unlink, missing_ok=True)
        if not asyncio.run(_with_tokens(settings, lambda tokens: tokens.add(kept))):
            raise ConfigurationError(
                f"there is a good token called {name} already; choose another name, or revoke "
                f"that one: broker admin token revoke {name}"
            )
        undo.pop_all()
    data = {**_as_data(kept, time.time()), **({"file": str(to)} if to else {"token": text})}

    def human() -> None:
        if to is None:
            typer.echo(text)
        where = f"It is in {to}." if to else "It is not shown again."
        typer.echo(f"{where} {_told(kept)}", err=True)
        if settings.admin.port is None:
            typer.echo(
                "The admin API is off: set port in the table [admin] of broker.toml.", err=True
            )

    output.emit(data, human, json)


def listed(*, home: output.HomeOption = None, json: output.JsonOption = False) -> None:
    """List the tokens that there are and were, never their values."""
    settings = _settings(home)
    found = asyncio.run(_with_tokens(settings, lambda tokens: tokens.all()))
    now = time.time()
    output.emit(
        [_as_data(token, now) for token in found],
        lambda: output.table(
            ("id", "name", "can", "state", "expires", "created by"),
            [
                (
                    token.id,
                    token.name,
                    " ".join(token.permissions),
                    _state(token, now),
                    _utc(token.expires_at),
                    token.created_by,
                )
                for token in found
            ],
            "No token: `broker admin token create NAME --expires 30d --can policy:read` makes one.",
        ),
        json,
    )


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name or id.")],
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """End a token at once."""
    from broker.app.trail import recorded
    from broker.errors import did_you_mean

    settings = _settings(home)
    now = time.time()
    good = [one for one in _all(settings) if one.is_good(now) and name in {one.name, one.id}]
    if not good:
        known = {one.name for one in _all(settings) if one.is_good(now)}
        raise ConfigurationError(
            f"there is no good token {name!r}{did_you_mean(name, known)}; "
            "`broker admin token list` shows them"
        )
    with recorded(settings, REVOKE, f"{good[0].name} ({good[0].id})"):
        ended = asyncio.run(
            _with_tokens(settings, lambda tokens: tokens.revoke(good[0].id, int(now)))
        )
    output.emit(
        [_as_data(token, now) for token in ended],
        lambda: typer.echo(f"Revoked: {good[0].name} ({good[0].id}). It is refused from now on."),
        json,
    )


def _settings(home: Path | None) -> Settings:
    from broker.app.home import open_keys

    settings = output.settings_from(home)
    open_keys(settings)
    return settings


def _all(settings: Settings) -> tuple[AdminToken, ...]:
    return asyncio.run(_with_tokens(settings, lambda tokens: tokens.all()))


async def _with_tokens(settings: Settings, do: Callable[[AdminTokens], Awaitable[_T]]) -> _T:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await do(storage.admin_tokens)
    finally:
        await storage.close()


def _state(token: AdminToken, now: float) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "good" if token.is_good(now) else "expired"


def _told(token: AdminToken) -> str:
    can = " and ".join(token.permissions)
    return f"{token.name} ({token.id}) may {can} until {_utc(token.expires_at)}."


def _as_data(token: AdminToken, now: float) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "can": list(token.permissions),
        "state": _state(token, now),
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
