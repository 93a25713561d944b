"""The admin API on a real store and real policy files, without a listener."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest_asyncio

from broker.administrators import new_token
from broker.app.admin import admin_app, judges
from broker.changes.edits import documents_of
from broker.changes.following import PolicyFollower
from broker.reload import PolicyStore
from broker.settings import Settings
from broker.settings.model import AdminSettings
from broker.storage.sqlite import SqliteStorage
from tests.fakes.trail import SlowTrail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp

    from broker.changes.keeping import Judges

PORT = 8702
HOST = f"127.0.0.1:{PORT}"
FILE = """\
services:
  orders:
    provider: http_api
    base_url: https://orders.example
    credential: {type: bearer, secret: "env:ORDERS"}
scopes:
  orders.read:
    service: orders
    allow: ["GET /**"]
agents:
  clerk:
    trust: [{source: local, claims: {sub: clerk}}]
    scopes: [orders.read]
identity_sources:
  local: {type: local}
"""
STRIPE = {
    "provider": "http_api",
    "base_url": "https://api.stripe.com",
    "credential": {"type": "bearer", "secret": "vault:kv/stripe#key"},
}
READ = {"service": "stripe", "allow": ["GET /v1/**"]}
BOT = {"trust": [{"source": "local", "claims": {"sub": "bot"}}], "scopes": ["stripe.read"]}
ALL = (("services", "stripe", STRIPE), ("scopes", "stripe.read", READ), ("agents", "bot", BOT))


def edit(section: str, name: str, body: Any, expected: str | None = None) -> dict[str, Any]:
    """One edit, as it is sent."""
    return {"section": section, "name": name, "body": body, "expected": expected}


@dataclass
class AdminBench:
    """The parts of an admin API, and a client whose token may do all."""

    app: ASGIApp
    storage: SqliteStorage
    policies: PolicyStore
    follower: PolicyFollower
    trail: SlowTrail
    settings: Settings
    judges: Judges
    token: str
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = self.client(self.token)

    def client(self, token: str | None, **headers: str) -> httpx.AsyncClient:
        """A client with this token."""
        sent = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=("192.0.2.1", 50_000)),
            base_url=f"http://127.0.0.1:{self.settings.admin.port}/admin/v1",
            headers=sent,
        )

    async def new_token(self, name: str, *permissions: str, lifetime: int = 3600) -> str:
        """Make another token."""
        token, kept = new_token(name, permissions, lifetime, by="user:test", now=1e9 * 2)
        assert await self.storage.admin_tokens.add(kept)
        return token.reveal().decode()

    async def change(
        self, *edits: dict[str, Any], comment: str | None = None, **more: Any
    ) -> httpx.Response:
        """Ask for a change."""
        body = {"edits": list(edits), "comment": comment, **more}
        return await self.http.post("/policy/changes", json=body)

    async def check(
        self, *edits: dict[str, Any], assume: Sequence[tuple[str, str]] = ()
    ) -> list[dict[str, Any]]:
        """Ask what is wrong with a change."""
        named = [{"section": section, "name": name} for section, name in assume]
        body = {"edits": list(edits), "assume": named}
        answer = await self.http.post("/policy/check", json=body)
        assert answer.status_code == 200, answer.text
        problems: list[dict[str, Any]] = answer.json()["problems"]
        assert answer.json()["loads"] is not bool(problems)
        return problems

    async def fill(self) -> None:
        """Keep a service, a scope and an agent."""
        answer = await self.change(*(edit(*one) for one in ALL), comment="first")
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def open_admin(home: Path, **admin: Any) -> AsyncIterator[AdminBench]:
    """Make the bench in a new directory."""
    settings = Settings(
        home, issuer="http://127.0.0.1:8700", admin=AdminSettings(**{"port": PORT, **admin})
    )
    settings.policies.mkdir(parents=True)
    (settings.policies / "own.yaml").write_text(FILE)
    storage = SqliteStorage(home / "broker.db")
    judged_by = judges(settings, lambda _: None)
    kept = await storage.policies.kept()
    policies = PolicyStore(settings.policies, judged_by.load, documents_of(kept))
    follower = PolicyFollower(storage.policies, policies.put_beside, policies.doubt, kept)
    trail = SlowTrail(prompt=True)
    app = admin_app(
        settings,
        storage=storage,
        trail=trail,
        policies=policies,
        follower=follower,
        judged_by=judged_by,
    )
    permissions = ("policy:read", "policy:write")
    token, stored = new_token("terraform", permissions, 3600, by="user:test", now=2e9)
    await storage.admin_tokens.add(stored)
    bench = AdminBench(
        app, storage, policies, follower, trail, settings, judged_by, token.reveal().decode()
    )
    try:
        async with bench.http:
            yield bench
    finally:
        await storage.close()


@pytest_asyncio.fixture
async def admin(tmp_path: Path) -> AsyncIterator[AdminBench]:
    """Give an admin API whose only policy file is `FILE`."""
    async with open_admin(tmp_path / "home") as bench:
        yield bench
