"""All that issues task tokens, put together from real parts on a clock that stands still.

Only what is outside the broker is played: the issuer of workload identities, and a provider
whose constraints take templates.
"""

from __future__ import annotations

import math
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

from broker.api.app import ControlPlane, create_app
from broker.audit.journal import Journal
from broker.audit.query import Reader
from broker.audit.statement import TrustedKeys
from broker.audit.trail import AuditTrail
from broker.errors import TokenRefused
from broker.exchange import ACTION, Exchange, IssuedToken
from broker.grants import Grants
from broker.identity.base import Audiences
from broker.identity.local import AgentKey, LocalSource, client_assertion, new_agent_key
from broker.identity.resolver import IdentityResolver
from broker.keys.jwk import verify_es256
from broker.keys.signing import FileSigningKey, KeySet, KeyState
from broker.limits.limiter import Limiter
from broker.limits.memory import MemoryCounts
from broker.model import EnrolledKey, Grant
from broker.policy.loader import Document, load_policy
from broker.policy.plugins import InstalledPlugins
from broker.revocations import Revocations
from broker.revoked import revocation
from broker.storage.sqlite import SqliteStorage
from broker.token_request import ACCESS, CLIENT_CREDENTIALS, EXCHANGE, JWT_BEARER
from broker.token_status import TokenStatus
from broker.tokens import TaskTokens
from providers.base import Minted, Plugin, Templated
from tests.fakes.issuer import BROKER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from broker.policy.engine import Policy
    from broker.storage.base import Ended
    from providers.base import CredentialRequest, Provider
    from tests.fakes.issuer import Bench

GATEWAY = "https://gateway.test"
JWT = "urn:ietf:params:oauth:token-type:jwt"
BY_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

POLICY = """
identity_sources:
  ci: {type: oidc, issuer: "%s", audiences: ["https://broker.test"], replay: single_use}
  laptop: {type: local}
services:
  api:
    provider: http_api
    base_url: https://api.example
    credential: {type: bearer, secret: "env:API_KEY"}
  files: {provider: vendor}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
  api.write: {service: api, allow: ["POST /**"], reason: required, max_ttl: 5m}
  api.admin: {service: api, allow: ["* /**"]}
  files.own:
    service: files
    delivery: [credential]
    path: "{agent}/{claims.repository_id}"
  files.task: {service: files, delivery: [credential], path: "{task}/x"}
agents:
  release-bot:
    trust: [{source: ci, claims: {repository_id: "123456"}}]
    scopes: [api.read, api.write, files.own, files.task]
    max_ttl: 1h
  helper:
    trust: [{source: laptop, claims: {sub: helper}}]
    scopes: [api.read, files.own]
    max_ttl: 10m
  other:
    trust: [{source: laptop, claims: {sub: other}}]
    scopes: [api.admin]
  twin-a: {trust: [{source: ci, claims: {repository_id: "222"}}], scopes: [api.read]}
  twin-b: {trust: [{source: ci, claims: {repository_id: "222"}}], scopes: [api.read]}
"""


class _ServiceFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ScopeFields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Annotated[str, Templated()]


class _Vendor:
    async def mint(self, request: CredentialRequest) -> Minted:
        return pytest.fail(f"nothing is minted for {request.grant} when a token is issued")


def _build(*_: object) -> Provider:
    return _Vendor()


VENDOR = Plugin(
    kind="vendor",
    service_model=_ServiceFields,
    scope_model=_ScopeFields,
    deliveries=frozenset({"credential"}),
    http_rules=False,
    build=_build,
    upstream=lambda _: None,
    token_slots=lambda _: (),
    secret_references=lambda _: (),
)


def serve(exchange: Exchange, **changes: Any) -> FastAPI:
    """Return a control plane on top of an exchange, with changes to its other parts."""
    parts = {"issuer": BROKER, "jwks": dict, "probes": {}, "registry": CollectorRegistry()}
    return create_app(ControlPlane(exchange, **{**parts, **changes}))


def over(app: ASGIApp, address: str = "192.0.2.1") -> httpx.AsyncClient:
    """Return a client of the application, which sees it come from `address`."""
    transport = httpx.ASGITransport(app, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url=BROKER)


def key_set(now: float = 0.0) -> KeySet:
    """One ES256 key, in memory."""
    key = FileSigningKey(ec.generate_private_key(ec.SECP256R1()))
    return KeySet((KeyState(key, 0, 0),), lambda: now)


@dataclass
class TokenBench:
    """An exchange, what it is made of, and the ways to ask it."""

    identities: Bench
    storage: SqliteStorage
    trail: AuditTrail
    audit_directory: Path
    keys: KeySet
    policy: Policy
    agent_keys: dict[str, AgentKey]
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock, monotonic = self.identities.wall, self.identities.monotonic
        self.tokens = TaskTokens(self.keys, BROKER, GATEWAY)
        self.grants = Grants(
            self.tokens,
            lambda: self.policy,
            clock=clock,
            monotonic=monotonic,
            stale_after=math.inf,
        )
        self.grants.learn(())
        self.limiter = Limiter(MemoryCounts(self.storage.totals, clock=monotonic))
        local = LocalSource(
            "laptop",
            self.storage.enrolled_keys,
            Audiences(BROKER, f"{BROKER}/token"),
            clock,
        )
        oidc = self.identities.source(replay="single_use", audiences=(BROKER,))
        oidc.name = "ci"
        self.exchange = Exchange(
            identities=IdentityResolver([oidc, local]),
            policy=lambda: self.policy,
            parent=self.grants.require,
            storage=self.storage,
            tokens=self.tokens,
            trail=self.trail,
            issuer=BROKER,
            targets=(BROKER, GATEWAY),
            limiter=self.limiter,
            clock=clock,
            monotonic=monotonic,
            sleep=self._sleep,
        )

        self.revocations = Revocations(self.storage.revocations, self.grants.learn)
        self.status = TokenStatus(
            identities=IdentityResolver([oidc, local]),
            policy=lambda: self.policy,
            grant=self.grants.require,
            revoke=self.revocations.revoke,
            storage=self.storage,
            trail=self.trail,
            issuer=BROKER,
            audience=GATEWAY,
            clock=clock,
            monotonic=monotonic,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.identities.wall.now += seconds
        self.identities.monotonic.now += seconds

    async def revoke(self, jti: str) -> Ended:
        """Revoke a grant."""
        order = revocation("grant", jti, now=self.identities.wall(), by="test")
        return await self.revocations.revoke(order)

    def load(self, text: str) -> None:
        """Put another policy in force."""
        self.policy = load(text)

    def proof(self, **changes: Any) -> str:
        """A workload identity's token, of release-bot and used nowhere yet."""
        now = int(self.identities.wall.now)
        times = {"iat": now - 5, "nbf": now - 5, "exp": now + 300}
        return self.identities.issuer.token(
            None, **{**times, "jti": secrets.token_hex(8), **changes}
        )

    def assertion(self, agent: str = "helper", audience: str = BROKER) -> str:
        """A client assertion of an enrolled agent."""
        pem = self.agent_keys[agent].pem
        return client_assertion(pem, agent, audience, self.identities.wall)

    async def ask(self, **parameters: str) -> IssuedToken:
        """Ask for a token as release-bot by token exchange, with changes."""
        return await self.exchange.token(exchanged(self.proof(), **parameters), "192.0.2.1")

    async def refused(self, parameters: Mapping[str, list[str]]) -> TokenRefused:
        """Ask for a token that is to be refused, and return the refusal."""
        with pytest.raises(TokenRefused) as refusal:
            await self.exchange.token(parameters, "192.0.2.1")
        return refusal.value

    def app(self, **changes: Any) -> FastAPI:
        """Return the control plane on top of the exchange, with changes to its parts."""
        parts = {"jwks": self.keys.public_jwks, "status": self.status}
        return serve(self.exchange, **{**parts, **changes})

    async def grant_of(self, issued: IssuedToken) -> Grant:
        """Return the stored grant of a token."""
        grant = await self.storage.grant(self.grants.require(issued.access_token.encode()).jti)
        assert grant is not None
        return grant

    def records(self, action: str = ACTION) -> list[dict[str, Any]]:
        """Return what the trail holds on token requests, or on something else."""
        return [
            dict(record)
            for record in Reader(self.audit_directory).read()
            if record.get("action") == action
        ]


def load(text: str) -> Policy:
    """Load one policy document, with the vendor as another provider."""
    plugins = {"http_api": InstalledPlugins()["http_api"], "vendor": VENDOR}
    return load_policy([Document("policy.yaml", text)], plugins=plugins)


def exchanged(proof: str, **changes: str) -> Mapping[str, list[str]]:
    """Parameters of a token exchange for a workload identity; an empty change is none."""
    parameters = {
        "grant_type": EXCHANGE,
        "subject_token": proof,
        "subject_token_type": JWT,
        "scope": "api.read",
    } | changes
    return {name: [value] for name, value in parameters.items()}


def narrowed(token: str, scope: str, **changes: str) -> Mapping[str, list[str]]:
    """Parameters of a token exchange for a task token."""
    return exchanged(token, subject_token_type=ACCESS, scope=scope, **changes)


def bearer(proof: str, **changes: str) -> Mapping[str, list[str]]:
    """Parameters of a JWT bearer grant."""
    parameters = {"grant_type": JWT_BEARER, "assertion": proof, "scope": "api.read"} | changes
    return {name: [value] for name, value in parameters.items()}


def client(assertion: str, **changes: str) -> Mapping[str, list[str]]:
    """Parameters of client credentials with a client assertion."""
    parameters = {
        "grant_type": CLIENT_CREDENTIALS,
        "client_assertion": assertion,
        "client_assertion_type": BY_JWT,
        "scope": "api.read",
    } | changes
    return {name: [value] for name, value in parameters.items()}


@asynccontextmanager
async def running_trail(directory: Path, writer: str = "main") -> AsyncIterator[AuditTrail]:
    """A trail with a key of its own."""
    keys = key_set()
    trusted = TrustedKeys(tuple(keys.public_jwks()["keys"]), verify_es256)
    trail = AuditTrail(Journal(directory, keys.signer, trusted, writer=writer))
    await trail.start()
    try:
        yield trail
    finally:
        await trail.close()


@asynccontextmanager
async def local_exchange(home: Path, writer: str) -> AsyncIterator[Exchange]:
    """An exchange for agents with keys, as one of several processes on one store runs it."""
    storage = SqliteStorage(home / "broker.db")
    policy = load(POLICY % "https://issuer.test")
    tokens = TaskTokens(key_set(), BROKER, GATEWAY)
    audiences = Audiences(BROKER, f"{BROKER}/token")
    grants = Grants(tokens, lambda: policy)
    grants.learn(())
    async with running_trail(home / f"audit-{writer}", writer) as trail:
        yield Exchange(
            identities=IdentityResolver([LocalSource("laptop", storage.enrolled_keys, audiences)]),
            policy=lambda: policy,
            parent=grants.require,
            storage=storage,
            tokens=tokens,
            trail=trail,
            issuer=BROKER,
            targets=(BROKER, GATEWAY),
        )
    await storage.close()


@pytest.fixture
async def token_client(token_bench: TokenBench) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the control plane."""
    async with over(token_bench.app()) as client:
        yield client


@pytest.fixture
async def token_bench(identity_bench: Bench, tmp_path: Path) -> AsyncIterator[TokenBench]:
    """An exchange on a fresh store and trail, with agents helper and other enrolled."""
    storage = SqliteStorage(tmp_path / "broker.db")
    agent_keys = {name: new_agent_key() for name in ("helper", "other")}
    for name, key in agent_keys.items():
        await storage.enrol(EnrolledKey(name, key.kid, key.public_jwk, 0))
    async with running_trail(tmp_path / "audit") as trail:
        yield TokenBench(
            identities=identity_bench,
            storage=storage,
            trail=trail,
            audit_directory=tmp_path / "audit",
            keys=key_set(),
            policy=load(POLICY % identity_bench.issuer.url),
            agent_keys=agent_keys,
        )
    await storage.close()
