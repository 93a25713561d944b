"""A broker that stops where it is told to, run as `python -m tests.attacks.mortal_broker serve`.

A test arms a step by making the file `before.STEP` or `after.STEP` in the folder `steps` beside the
broker's home. Whoever comes to it first finds it, renames it to `held.before.STEP` and goes no
further: then is the time to kill the process. Steps are named for what is done, and the scope it
is done for: `mint.repo.write`. The reaper does nothing before there is a file `reap`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from broker.api import credentials
from broker.audit.trail import AuditTrail
from broker.cli.main import main
from broker.leases import reaper
from broker.leases.base import LeaseDesk
from broker.leases.reaper import Reaper
from broker.storage.leases import SqliteLeases
from providers.aws_sts.session import AwsSts
from providers.github_app.provider import GithubApp
from providers.vault_dynamic.provider import VaultDynamic

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.model import AuditRecord, Lease

STEPS = Path(os.environ["BROKER_HOME"]).parent / "steps"
_scopes: dict[str, str] = {}  # of leases, by their ids


async def reach(moment: str) -> None:
    """Go on, unless the moment is armed: then never."""
    try:
        (STEPS / moment).rename(STEPS / f"held.{moment}")
    except FileNotFoundError:
        return
    await asyncio.Event().wait()


def stop_at(owner: Any, name: str, step: Callable[..., str | None]) -> None:
    """Have a method or function stop before and after its work; `step` names it by its call."""
    work = getattr(owner, name)

    async def stopping(*given: Any, **named: Any) -> Any:
        reached = step(*given)
        if reached is None:
            return await work(*given, **named)
        await reach(f"before.{reached}")
        done = await work(*given, **named)
        await reach(f"after.{reached}")
        return done

    setattr(owner, name, stopping)


def _of_lease(word: str) -> Callable[..., str]:
    def name(_: object, lease: Lease | str, *__: object) -> str:
        if isinstance(lease, str):
            return f"{word}.{_scopes.get(lease, 'unknown')}"
        _scopes[lease.id] = lease.scope
        return f"{word}.{lease.scope}"

    return name


def _of_request(word: str) -> Callable[..., str]:
    return lambda _, request, *__: f"{word}.{request.scope}"


def _of_record(_: object, record: AuditRecord) -> str | None:
    minting = record.action == "credential.mint" and record.decision == "allow"
    return f"{record.phase}.{record.scope}" if minting else None


def _of_body(body: bytes, *_: object) -> str:
    return f"answer.{orjson.loads(body)['scope']}"


def arrange() -> None:
    """Make every step of minting and of ending one at which the process can be killed."""
    for word in ("open", "minted", "delivered", "use", "close", "retry"):
        stop_at(SqliteLeases, word, _of_lease(word))
    stop_at(SqliteLeases, "reserve", _of_lease("held"))
    stop_at(AuditTrail, "record", _of_record)
    stop_at(VaultDynamic, "reserve", _of_request("hold"))
    stop_at(VaultDynamic, "mint_reserved", _of_request("mint"))
    stop_at(VaultDynamic, "renew", lambda *_: "renew.orders.brief")  # up to the grant's end
    for provider in (GithubApp, AwsSts):
        stop_at(provider, "mint", _of_request("mint"))
    stop_at(credentials, "_write", _of_body)
    stop_at(Reaper, "_revoke", _of_lease("end"))

    reap = Reaper.reap

    async def when_told(self: Reaper) -> int:
        return await reap(self) if (STEPS / "reap").exists() else 0

    Reaper.reap = when_told  # type: ignore[method-assign]
    vars(reaper)["AT_ONCE"] = 64  # as many ends at once as are to be stopped
    defaults = LeaseDesk.__init__.__kwdefaults__ or {}
    defaults["patience"] = 600.0  # with what is held


if __name__ == "__main__":
    arrange()
    main()
