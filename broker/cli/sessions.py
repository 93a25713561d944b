"""`broker sessions`: which grants are good now, how much they are used, how long they last."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.app.counts import UsedTotal
    from broker.model import Session
    from broker.settings import Settings

_MINUTE: Final = 60
_HOUR: Final = 3600
_LONGEST_CELL: Final = 40


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("sessions")(sessions)


def sessions(
    *,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Those in which this agent has a part.")
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """List live grants: whose, for what, since when, for how long yet, how much used."""
    from broker.app.home import open_keys

    settings = output.settings_from(home)
    open_keys(settings)
    found = [
        one
        for one in asyncio.run(live_sessions(settings))
        if agent is None or agent in one.grant.parties
    ]
    totals = asyncio.run(_totals(settings, found))
    now = time.time()

    def human() -> None:
        output.table(
            ("grant", "agent", "task", "scopes", "age", "left", "requests", "last use"),
            [_row(one, now, totals[one.grant.jti]) for one in found],
            "No grant is live." if agent is None else f"No grant of {agent} is live.",
        )
        if found:
            output.next_steps((f"broker revoke {found[-1].grant.jti}", "end that one at once"))

    data = [_as_data(one, now, totals[one.grant.jti]) for one in found]
    output.emit(data, human, json)


async def live_sessions(settings: Settings) -> tuple[Session, ...]:
    """Return the grants that are good now, the oldest first."""
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.sessions(time.time())
    finally:
        await storage.close()


async def _totals(
    settings: Settings, sessions: Sequence[Session]
) -> dict[str, tuple[UsedTotal, ...]]:
    """Return what each grant has used of its totals, as far as that is counted here."""
    from broker.app.counts import used_totals
    from broker.app.home import open_storage
    from broker.app.policies import home_policy
    from broker.errors import ConfigurationError, StorageError

    none: dict[str, tuple[UsedTotal, ...]] = {one.grant.jti: () for one in sessions}
    if settings.limits.url is not None or not sessions:
        return none
    try:
        policy = home_policy(settings)
    except (ConfigurationError, StorageError):
        return none  # grants are listed whatever has become of the policy
    storage = open_storage(settings)
    try:
        return {
            one.grant.jti: await used_totals(policy, storage.totals, one.grant) for one in sessions
        }
    finally:
        await storage.close()


def _row(session: Session, now: float, totals: Sequence[UsedTotal]) -> tuple[str, ...]:
    grant = session.grant
    return (
        grant.jti,
        " for ".join(reversed(grant.parties[:2])),
        _short(grant.task or "-"),
        _short(" ".join(grant.scopes)),
        _duration(now - grant.issued_at),
        _duration(grant.expires_at - now),
        ", ".join((str(session.requests), *(f"{one.used} of {one.most}" for one in totals))),
        "-" if session.used_at is None else f"{_duration(now - session.used_at)} ago",
    )


def _as_data(session: Session, now: float, totals: Sequence[UsedTotal]) -> dict[str, Any]:
    grant = session.grant
    return {
        "grant": grant.jti,
        "agent": grant.agent,
        "acting": list(grant.parties[1:]),
        "task": grant.task,
        "reason": grant.reason,
        "scopes": list(grant.scopes),
        "parent": grant.parent_jti,
        "issued_at": grant.issued_at,
        "expires_at": grant.expires_at,
        "age": round(now - grant.issued_at),
        "left": round(grant.expires_at - now),
        "requests": session.requests,
        "used_at": session.used_at,
        "totals": {one.name: {"used": one.used, "most": one.most} for one in totals},
    }


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE}m"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
