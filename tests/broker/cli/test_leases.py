from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.storage.sqlite import SqliteStorage
from tests.contracts.leases import LEASE, MINTER, REAPER

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands


def _keep(broker: Commands) -> None:
    """Keep a lease in each state that shows something of its own."""

    async def keep() -> None:
        now = time.time()
        storage = SqliteStorage(broker.home / "data" / "broker.db")
        leases = storage.leases
        for name in ("delivered", "revoking", "revoked"):
            lease = replace(
                LEASE,
                id=name,
                created_at=now,
                due_at=now - 1,
                grant_ends_at=now + 900,
                expires_at=now + 900,
            )
            await leases.open(lease, MINTER, now, 9)
            await leases.minted(name, b"handle", now + 900, now)
            await leases.delivered(name, now if name != "delivered" else now + 900)
        for lease in await leases.claim(REAPER, now + 1, now + 30, 9):
            if lease.id == "revoking":
                problem = "Vault is \x1b[2Jsealed"
                await leases.retry(lease, REAPER, now + 60, problem, ending=True)
            else:
                await leases.close(lease, REAPER, "revoked", now)
        await storage.close()

    asyncio.run(keep())


def test_none(broker: Commands) -> None:
    assert broker.ok("leases").out.startswith("No credential is out.")
    assert broker.ok("leases", "--json").data == []


def test_those_that_are_not_over(broker: Commands) -> None:
    _keep(broker)
    head, delivered, revoking = broker.ok("leases").out.splitlines()
    assert head.split() == ["LEASE", "AGENT", "SCOPE", "STATE", "ENDS", "PROBLEM"]
    assert delivered.split()[:4] == ["delivered", "release-bot", "db.read", "delivered"]
    assert "attempt 2" in revoking
    assert "Vault is \\x1b[2Jsealed" in revoking


def test_what_the_gateway_uses_and_no_agent_has(broker: Commands) -> None:
    async def use() -> None:
        now = time.time()
        storage = SqliteStorage(broker.home / "data" / "broker.db")
        lease = replace(LEASE, grant_ends_at=now + 90, expires_at=now + 3600, delivery="proxy")
        await storage.leases.open(lease, MINTER, now, 9)
        await storage.leases.minted(LEASE.id, b"handle", now + 3600, now)
        await storage.leases.use(LEASE.id, MINTER, now + 3600, now + 40)
        await storage.close()

    asyncio.run(use())
    (shown,) = broker.ok("leases", "--json").data
    assert (shown["state"], shown["delivery"]) == ("used", "proxy")
    _, line = broker.ok("leases").out.splitlines()
    assert line.split()[3:5] == ["used", "in"]


def test_what_nothing_can_revoke_is_shown_with_its_remaining_life(broker: Commands) -> None:
    async def wait() -> None:
        now = time.time()
        storage = SqliteStorage(broker.home / "data" / "broker.db")
        lease = replace(LEASE, due_at=now, grant_ends_at=now + 90, expires_at=now + 3600)
        await storage.leases.open(lease, MINTER, now, 9)
        await storage.leases.minted(LEASE.id, b"handle", now + 3600, now)
        await storage.leases.end(LEASE.id, MINTER, now, None)
        (due,) = await storage.leases.claim(REAPER, now + 1, now + 30, 9)
        await storage.leases.retry(due, REAPER, due.expires_at, "ends by itself", ending=True)
        await storage.close()

    asyncio.run(wait())
    _, line = broker.ok("leases").out.splitlines()
    assert line.split()[3:5] == ["unrevocable", "in"]
    assert 3500 < int(line.split()[5].removesuffix("s")) <= 3600


def test_those_that_are_over_too_and_no_handle(broker: Commands) -> None:
    _keep(broker)
    ran = broker.ok("leases", "--all", "--json")
    assert {one["lease"]: one["state"] for one in ran.data} == {
        "delivered": "delivered",
        "revoking": "revoking",
        "revoked": "revoked",
    }
    assert "handle" not in ran.out
    assert "ago" in broker.ok("leases", "--all").out


def test_what_nobody_can_revoke_is_shown_with_its_remaining_life(broker: Commands) -> None:
    async def keep() -> None:
        now = time.time()
        storage = SqliteStorage(broker.home / "data" / "broker.db")
        due = replace(LEASE, due_at=now, created_at=now)
        session = replace(due, grant_ends_at=now + 900, expires_at=now + 900)
        await storage.leases.open(session, MINTER, now, 9)
        await storage.leases.minted(LEASE.id, b"handle", now + 900, now)
        await storage.leases.delivered(LEASE.id, now)
        (lease,) = await storage.leases.claim(REAPER, now + 1, now + 30, 9)
        problem = "its provider revokes nothing; it ends by itself"
        await storage.leases.retry(lease, REAPER, lease.expires_at, problem, ending=True)
        await storage.close()

    asyncio.run(keep())
    _, told = broker.ok("leases").out.splitlines()
    assert re.search(r"unrevocable\s+in [89]\d\ds\s", told)
    (data,) = broker.ok("leases", "--json").data
    assert 800 < data["remaining"] <= 900
