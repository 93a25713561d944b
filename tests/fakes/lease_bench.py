"""All that mints credentials, put together from real parts on a clock that stands still.

Only the vendor is played.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from broker.app.minters import Minters
from broker.audit.query import Reader
from broker.grants import Grants
from broker.keys.sealing import MasterKey
from broker.leases.base import LeaseDesk
from broker.leases.minting import Issued, Leases
from broker.leases.order import Order
from broker.leases.proxied import Proxied
from broker.leases.reaper import Reaper
from broker.limits.limiter import Limiter
from broker.limits.memory import MemoryCounts
from broker.model import Grant
from broker.policy.loader import Document, load_policy
from broker.policy.plugins import InstalledPlugins
from broker.revocations import Revocations
from broker.revoked import revocation
from broker.storage.sqlite import SqliteStorage
from broker.tokens import TaskTokens
from providers.base import Dependencies
from tests.fakes.issuer import BROKER
from tests.fakes.token_bench import GATEWAY, key_set, over, running_trail
from tests.fakes.vendor_mint import Vendor, plugins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from broker.audit.trail import AuditTrail, Durable
    from broker.model import Lease
    from broker.policy.engine import Policy
    from providers.base import Plugin

NOW = 1_750_000_000.0
SCOPES = ("plain.use", "revoking.use", "reserving.use")

POLICY = """
identity_sources:
  laptop: {type: local}
services:
  api:
    provider: http_api
    base_url: https://api.example
    credential: {type: bearer, secret: "env:API_KEY"}
  plain: {provider: plain}
  revoking: {provider: revoking}
  reserving: {provider: reserving}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
  plain.use: {service: plain, delivery: [credential]}
  revoking.use: {service: revoking, delivery: [credential]}
  reserving.use: {service: reserving, delivery: [credential]}
  reserving.brief: {service: reserving, delivery: [credential], max_ttl: 1m}
  reserving.why: {service: reserving, delivery: [credential], reason: required}
agents:
  coder:
    trust: [{source: laptop, claims: {sub: coder}}]
    scopes: [api.read, plain.use, revoking.use, reserving.use, reserving.brief, reserving.why]
    max_ttl: 1h
"""

GRANT = Grant(
    jti="grant-1",
    agent="coder",
    issuer="local",
    subject="coder",
    scopes=("api.read", *SCOPES, "reserving.brief", "reserving.why"),
    issued_at=int(NOW),
    expires_at=int(NOW) + 900,
    policy_version="sha256:0",
    client_id="coder",
    task="tidy up",
)


class Clock:
    """A wall clock that stands still until told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class LeaseBench:
    """A worker that mints and ends credentials, and the ways to ask it."""

    storage: SqliteStorage
    trail: AuditTrail
    directory: Path
    clock: Clock
    vendor: Vendor
    plugins: dict[str, Plugin]
    master: MasterKey

    def __post_init__(self) -> None:
        self.policy: Policy = self.load(POLICY)
        self.tokens = TaskTokens(key_set(), BROKER, GATEWAY)
        self.grants = Grants(
            self.tokens,
            lambda: self.policy,
            clock=self.clock,
            monotonic=self.clock,
            stale_after=math.inf,
        )
        self.grants.learn(())
        minters = Minters(self.plugins, Dependencies(None, None, self.clock))  # type: ignore[arg-type]
        self.desk = LeaseDesk(
            store=self.storage.leases,
            providers=minters,
            sealer=self.master,
            trail=self.trail,
            clock=self.clock,
        )
        self.unwritten = 0
        self._count_what_is_written()
        self.limiter = Limiter(MemoryCounts(self.storage.totals, clock=self.clock))
        self.leases = self.worker()
        self.reaper = Reaper(self.desk, self.leases.wake, poll=0.01)

    def _count_what_is_written(self) -> None:
        append = self.trail.append

        def counted(record: Any, durable: Durable | None = None) -> None:
            def settled(error: Exception | None) -> None:
                self.unwritten -= 1
                if durable is not None:
                    durable(error)

            append(record, settled)
            self.unwritten += 1

        self.trail.append = counted  # type: ignore[method-assign]

    def worker(self, **changes: Any) -> Leases:
        """Return another that mints from the same store, as another worker would."""
        return Leases(
            replace(self.desk, **changes),
            policy=lambda: self.policy,
            grant=self.grants.require,
            limiter=self.limiter,
            monotonic=self.clock,
        )

    def proxied(self, **changes: Any) -> Proxied:
        """Return what supplies the gateway of this worker, or of another, from the same store."""
        desk = replace(self.desk, **changes)
        return Proxied(desk, self.grants.is_revoked, monotonic=self.clock)

    def order(self, scope: str = "reserving.use", **changes: Any) -> Order:
        """Return what the gateway asks for."""
        grant = replace(GRANT, **changes)
        service = self.policy.services[self.policy.scopes[scope].service]
        lifetime = int(grant.expires_at - self.clock())
        constraints = self.policy.constraints(scope, grant)
        return Order(grant, service, scope, constraints, lifetime, self.clock(), "proxy")

    def load(self, text: str) -> Policy:
        """Return a policy that knows the vendor's providers."""
        known = {"http_api": InstalledPlugins()["http_api"], **self.plugins}
        return load_policy([Document("policy.yaml", text)], plugins=known)

    def token(self, **changes: Any) -> bytes:
        """Return the task token of the grant, with changes."""
        return self.tokens.issue(replace(GRANT, **changes)).encode()

    async def mint(self, scope: str = "reserving.use", **changes: Any) -> Issued:
        """Mint a credential, and do not deliver it."""
        return await self.leases.mint(self.token(**changes), scope, None, "192.0.2.1")

    async def deliver(self, scope: str = "reserving.use", **changes: Any) -> Issued:
        """Mint a credential and deliver it."""
        issued = await self.mint(scope, **changes)
        assert await self.leases.delivered(issued)
        return issued

    async def revoke(self, jti: str = GRANT.jti) -> None:
        """Revoke a grant, as any worker may."""
        order = revocation("grant", jti, now=self.clock(), by="test")
        await Revocations(self.storage.revocations, self.grants.learn).revoke(order)

    async def reap(self, wait: float = 0.0) -> None:
        """Let time pass, and the reaper work until nothing is due."""
        self.clock.now += wait
        while await self.reaper.reap():
            pass
        while self.unwritten:  # noqa: ASYNC110 - the reaper does not wait for the trail
            await asyncio.sleep(0.001)

    async def only(self) -> Lease:
        """Return the one lease that there is."""
        (lease,) = await self.storage.leases.leases(over=True)
        return lease

    async def only_live(self) -> Lease:
        """Return the one lease that is not over."""
        (lease,) = await self.storage.leases.leases()
        return lease

    def records(self) -> list[dict[str, Any]]:
        """Return what the trail holds."""
        return [dict(record) for record in Reader(self.directory).read() if "action" in record]

    def client(self) -> httpx.AsyncClient:
        """Return a client of the control plane."""
        from broker.api.app import ControlPlane, create_app  # noqa: PLC0415 - not all need it

        control = ControlPlane(
            None,  # type: ignore[arg-type]
            BROKER,
            dict,
            {},
            CollectorRegistry(),
            self.leases,
        )
        return over(create_app(control))


@pytest.fixture
async def lease_bench(tmp_path: Path) -> AsyncIterator[LeaseBench]:
    """A worker on a fresh store and trail."""
    clock = Clock()
    vendor = Vendor(clock)
    storage = SqliteStorage(tmp_path / "broker.db")
    async with running_trail(tmp_path / "audit") as trail:
        yield LeaseBench(
            storage, trail, tmp_path / "audit", clock, vendor, plugins(vendor), MasterKey(b"k" * 32)
        )
    await storage.close()
