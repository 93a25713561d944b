"""A gateway put together from real parts, before an upstream that records what it is sent."""

from __future__ import annotations

import math
import secrets
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.authority import Authority
from broker.audit.journal import Journal
from broker.audit.query import Reader
from broker.audit.redaction import redact_path
from broker.audit.statement import TrustedKeys
from broker.audit.trail import AuditTrail
from broker.gateway.base import Resource
from broker.gateway.limits import GatewayLimits
from broker.gateway.metrics import GatewayMetrics
from broker.gateway.record import ACTION
from broker.gateway.server import GatewayServer
from broker.grants import Grants
from broker.keys.jwk import verify_es256
from broker.limits.limiter import Limiter
from broker.model import Grant
from broker.policy.loader import Document, load_policy
from broker.tokens import TaskTokens
from providers.base import Dependencies, ProviderError, Secret
from tests.fakes.token_bench import key_set
from tests.fakes.upstream import Upstream, recording_upstream
from tests.fakes.wire import Response, Wire, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.audit.base import BusyTrail
    from broker.limits.base import Counts
    from broker.policy.engine import Policy

ISSUER = "https://broker.test"
GATEWAY = "https://gateway.test"
KEY = "sk_live_canary_7f3a9c"
AGENT = "tester"

CREDENTIALS = {
    "api": '{type: bearer, secret: "env:KEY"}',
    "based": '{type: bearer, secret: "env:KEY"}',
    "keyed": '{type: header, name: X-Api-Key, secret: "env:KEY"}',
    "basic": '{type: basic, username: account, secret: "env:KEY"}',
    "query": '{type: query, name: api_key, secret: "env:KEY"}',
    "cookie": '{type: cookie, name: session, secret: "env:KEY"}',
    "unfilled": '{type: bearer, secret: "env:ABSENT"}',
}
ALL = tuple(f"{service}.all" for service in CREDENTIALS)
"""Scopes that allow everything on every service, but for /admin/."""


def service(name: str, credential: str, fields: str = "") -> str:
    """A service at the upstream's port, in a policy's words."""
    base = "/base/v2" if name == "based" else ""
    own = (
        fields or f"base_url: http://127.0.0.1:PORT{base}, insecure_http: true, allow_private: true"
    )
    return f"  {name}: {{provider: http_api, credential: {credential}, {own}}}"


def policy_text(fields: str = "") -> str:
    """A policy of all kinds of credential; `fields` replace where the services are."""
    services = [service(name, credential, fields) for name, credential in CREDENTIALS.items()]
    scopes = [
        f'  {name}.all: {{service: {name}, allow: ["* /**"], deny: ["* /admin/**"]}}'
        for name in CREDENTIALS
    ]
    return "\n".join(
        [
            "identity_sources: {laptop: {type: local}}",
            "services:",
            *services,
            "scopes:",
            *scopes,
            '  api.read: {service: api, allow: ["GET /v1/**"]}',
            "agents:",
            f"  {AGENT}:",
            f"    trust: [{{source: laptop, claims: {{sub: {AGENT}}}}}]",
            f"    scopes: [{', '.join(ALL)}, api.read]",
        ]
    )


def socket_policy(fields: str = "") -> str:
    """The same, and api.all lets websockets through."""
    return _where_all_says("websocket: true", fields)


def behalf_policy() -> str:
    """The same, and api.all lets requests be on behalf of some others."""
    some = "Impersonate-User: root, X-Tenant: [a, b], Sudo: {any: true}"
    return _where_all_says(f"on_behalf: {{{some}}}")


def _where_all_says(more: str, fields: str = "") -> str:
    scope = "  api.all: {service: api, "
    return policy_text(fields).replace(scope, f"{scope}{more}, ")


@dataclass
class Values:
    """The secrets there are, and how often each was read (`providers.base.SecretReader`)."""

    values: dict[str, bytes] = field(default_factory=lambda: {"env:KEY": KEY.encode()})
    reads: list[str] = field(default_factory=list)

    async def read(self, reference: str) -> Secret:
        self.reads.append(reference)
        if reference not in self.values:
            raise ProviderError(f"{reference} is not set")
        return Secret(self.values[reference])


@dataclass
class Store:
    current: Policy


@dataclass
class GatewayBench:
    """A gateway, what it is made of, and ways to call it."""

    upstream: Upstream
    store: Store
    secrets: Values
    trail: BusyTrail
    audit_directory: Path
    limits: GatewayLimits
    counts: Counts | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.tokens = TaskTokens(key_set(time.time()), ISSUER, GATEWAY)
        self.grants = Grants(self.tokens, lambda: self.store.current, stale_after=math.inf)
        self.grants.learn(())
        self.metrics = GatewayMetrics()
        self.limiter = None if self.counts is None else Limiter(self.counts)
        dependencies = Dependencies(self.secrets, lambda: None, time.time)
        self.authority = Authority(self.store, self.grants, dependencies, None)  # type: ignore[arg-type]
        self.server = GatewayServer(
            self.authority,
            self.trail,
            resource=Resource(GATEWAY, ISSUER),
            redact_path=redact_path,
            limits=self.limits,
            metrics=self.metrics,
            limiter=self.limiter,
        )

    async def start(self) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        await self.server.start(listener)

    def load(self, text: str) -> None:
        """Put another policy in force."""
        self.store.current = policy(text, self.upstream.port)

    def load_again(self) -> None:
        """Put the usual policy in force, for services at `upstream.port` as it is now."""
        self.load(policy_text())

    def token(
        self,
        *scopes: str,
        lifetime: int = 900,
        agent: str = AGENT,
        ancestors: tuple[str, ...] = (),
        jti: str | None = None,
    ) -> bytes:
        """A task token of the tester; without scopes, one for everything."""
        now = int(time.time())
        grant = Grant(
            jti=jti or secrets.token_hex(8),
            agent=agent,
            issuer="local",
            subject=agent,
            scopes=scopes or ALL,
            issued_at=now,
            expires_at=now + lifetime,
            policy_version=self.store.current.version,
            client_id=agent,
            task="try things",
            ancestors=ancestors,
        )
        return self.tokens.issue(grant).encode()

    def head(
        self, method: bytes, target: bytes, *lines: bytes, token: bytes | None = None
    ) -> bytes:
        """A request's head, with Host and the task token (b"" for none)."""
        bearer = self.token() if token is None else token
        auth = [b"Authorization: Bearer " + bearer] if bearer else []
        first = b"%b %b HTTP/1.1" % (method, target)
        return b"\r\n".join([first, b"Host: gateway.test", *auth, *lines, b"", b""])

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Wire]:
        """Open a connection to the gateway."""
        async with wire(self.port) as connection:
            yield connection

    async def call(
        self,
        method: bytes,
        target: bytes,
        *lines: bytes,
        body: bytes = b"",
        token: bytes | None = None,
    ) -> Response:
        """Send one request on a connection of its own, and return the response."""
        if body:
            lines = (*lines, b"Content-Length: %d" % len(body))
        async with self.connect() as connection:
            await connection.send(self.head(method, target, *lines, token=token) + body)
            return await connection.response(method)

    async def talk(self, data: bytes) -> bytes:
        """Send bytes, and return all that comes back until the gateway closes."""
        async with self.connect() as connection:
            await connection.send(data)
            return await connection.rest()

    async def records(self) -> list[dict[str, Any]]:
        """What the trail holds on requests, once it is all written."""
        if isinstance(self.trail, AuditTrail):
            await self.trail.close()
        found = Reader(self.audit_directory).read()
        return [dict(record) for record in found if record.get("action") == ACTION]


def policy(text: str, port: int) -> Policy:
    """Load a policy whose services are at this port."""
    return load_policy([Document("test.yaml", text.replace("PORT", str(port)))])


def open_trail(directory: Path) -> AuditTrail:
    """A real trail in a folder."""
    directory.mkdir(mode=0o700, exist_ok=True)
    keys = key_set()
    trusted = TrustedKeys(tuple(keys.public_jwks()["keys"]), verify_es256)
    return AuditTrail(Journal(directory, keys.signer, trusted))


@asynccontextmanager
async def gateway_bench(
    directory: Path,
    *,
    text: str = "",
    limits: GatewayLimits | None = None,
    trail: BusyTrail | None = None,
    counts: Counts | None = None,
) -> AsyncIterator[GatewayBench]:
    """A running gateway before a recording upstream."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(recording_upstream())
        if trail is None:
            trail = open_trail(directory)
            await trail.start()
            stack.push_async_callback(trail.close)
        bench = GatewayBench(
            upstream=upstream,
            store=Store(policy(text or policy_text(), upstream.port)),
            secrets=Values(),
            trail=trail,
            audit_directory=directory,
            limits=limits or GatewayLimits(),
            counts=counts,
        )
        await bench.start()
        stack.push_async_callback(bench.server.close, 0.0)
        yield bench


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayBench]:
    """A running gateway with the usual services."""
    async with gateway_bench(tmp_path / "audit") as bench:
        yield bench
