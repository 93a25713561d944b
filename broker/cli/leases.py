"""`broker leases`: which credentials have been minted, and what has become of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import output

if TYPE_CHECKING:
    from broker.model import Lease
    from broker.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("leases")(leases)


def leases(
    *,
    over: Annotated[
        bool, typer.Option("--all", metavar="", help="Also those that are over.")
    ] = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """List credentials that have been minted and are not over, and what keeps them from ending.

    An agent has what is delivered; what is used the gateway writes into requests; what is
    unrevocable should have ended, and lives on until it expires.
    """
    from broker.app.home import open_keys

    settings = output.settings_from(home)
    open_keys(settings)
    found = asyncio.run(_leases(settings, over=over))
    now = time.time()

    def human() -> None:
        output.table(
            ("lease", "agent", "scope", "state", "ends", "problem"),
            [
                (
                    lease.id,
                    lease.agent,
                    lease.scope,
                    lease.standing,
                    _ends(lease, now),
                    lease.problem or "-",
                )
                for lease in found
            ],
            "No credential is out. See those of the last day with `broker leases --all`.",
        )

    output.emit([_as_data(lease) for lease in found], human, json)


async def _leases(settings: Settings, *, over: bool) -> tuple[Lease, ...]:
    from broker.app.home import open_storage

    storage = open_storage(settings)
    try:
        return await storage.leases.leases(over=over)
    finally:
        await storage.close()


def _ends(lease: Lease, now: float) -> str:
    if lease.ended_at is not None:
        return f"{now - lease.ended_at:.0f}s ago"
    if lease.standing == "revoking":
        return f"attempt {lease.attempts + 1}"
    # Of what cannot be revoked, or may exist, what counts is how long it can live itself.
    own = lease.standing in {"unrevocable", "intent"}
    end = lease.expires_at if own else min(lease.expires_at, lease.grant_ends_at)
    return f"in {max(0.0, end - now):.0f}s"


def _as_data(lease: Lease) -> dict[str, Any]:
    return {
        "lease": lease.id,
        "grant": lease.grant,
        "agent": lease.agent,
        "service": lease.service,
        "scope": lease.scope,
        "provider": lease.provider,
        "state": lease.standing,
        "delivery": lease.delivery,
        "created_at": lease.created_at,
        "grant_ends_at": lease.grant_ends_at,
        "expires_at": lease.expires_at,
        "remaining": None if lease.ended_at else max(0, round(lease.expires_at - time.time())),
        "ended_at": lease.ended_at,
        "attempts": lease.attempts,
        "problem": lease.problem,
    }
