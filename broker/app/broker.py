"""Put the broker together from its parts."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from broker import http
from broker.api.app import ControlPlane, create_app
from broker.app.admin import admin_app, judges
from broker.app.authority import Authority
from broker.app.backends import open_backends, open_vault, reference_check
from broker.app.counts import open_counts
from broker.app.health import probes, unwell
from broker.app.home import Places, open_keys, open_storage
from broker.app.identities import Identities
from broker.app.minters import Minters
from broker.app.policies import kept_at_start, open_policies
from broker.app.tally import Tally
from broker.app.trail import close_left_chains, trusted_keys
from broker.app.worker import writer
from broker.audit.journal import Journal, Rotation
from broker.audit.redaction import redact_path
from broker.audit.trail import AuditTrail
from broker.changes.following import PolicyFollower
from broker.exchange import Exchange
from broker.gateway.base import Resource
from broker.gateway.limits import GatewayLimits
from broker.gateway.metrics import GatewayMetrics
from broker.gateway.server import GatewayServer
from broker.grants import Grants
from broker.identity.base import Audiences
from broker.leases.base import LeaseDesk
from broker.leases.minting import Leases
from broker.leases.proxied import Proxied
from broker.leases.reaper import Reaper
from broker.limits.limiter import Limiter
from broker.policy.plugins import InstalledPlugins
from broker.provider_state import SealedState
from broker.revocations import Revocations
from broker.secrets.reader import ProviderSecrets, Secrets
from broker.token_status import TokenStatus
from broker.tokens import TaskTokens
from providers.base import Dependencies, Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from starlette.types import ASGIApp

    from broker.api.health import Health
    from broker.app.home import Keys
    from broker.app.worker import Worker
    from broker.keys.signing import KeySet
    from broker.model import Revocation
    from broker.reload import PolicyStore
    from broker.secrets.vault import VaultBackend
    from broker.settings import Settings
    from broker.storage.sqlite import SqliteStorage


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that is ready to serve, and the parts that need looking after while it does."""

    control: ASGIApp
    admin: ASGIApp | None
    gateway: GatewayServer
    policies: PolicyStore
    follower: PolicyFollower
    secrets: Secrets
    storage: SqliteStorage
    vault: VaultBackend | None
    reaper: Reaper
    proxied: Proxied
    grants: Grants
    revocations: Revocations
    tally: Tally | None
    limiter: Limiter


@asynccontextmanager
async def open_broker(settings: Settings, worker: Worker | None = None) -> AsyncIterator[Broker]:
    """Open everything that a broker needs; on the way out, close it in good order.

    `worker` is which of several processes this one is, if there are several.

    Raises:
        ConfigurationError: something must be mended first; says what. Nothing is left open.
        AuditUnavailable: the trail cannot be written.
        StorageError: the database cannot be read, or has forgotten revocations.
    """
    async with AsyncExitStack() as stack:
        broker = _join(await _open(settings, worker, stack))
        await broker.revocations.catch_up()
        yield broker


@dataclass(frozen=True, slots=True)
class _Opened:
    """What holds files and connections, opened in this order and closed in the other."""

    settings: Settings
    worker: Worker | None
    keys: Keys
    trail: AuditTrail
    storage: SqliteStorage
    vault: VaultBackend | None
    secrets: Secrets
    identities: Identities
    policies: PolicyStore
    follower: PolicyFollower
    limiter: Limiter


async def _open(settings: Settings, worker: Worker | None, stack: AsyncExitStack) -> _Opened:
    keys = open_keys(settings)
    trail = _trail(settings, keys.audit, writer(1) if worker is None else worker.writer)
    await trail.start()
    stack.push_async_callback(trail.close)
    if worker is None or worker.number == 1:
        await asyncio.to_thread(close_left_chains, settings, keys.audit)
    storage = open_storage(settings)
    stack.push_async_callback(storage.close)
    vault = open_vault(settings)
    backends = open_backends(settings, keys.master, vault)
    secrets = Secrets(backends, stale_for=settings.vault.stale_for)
    stack.push_async_callback(secrets.close)
    audiences = Audiences(settings.issuer, settings.token_endpoint)
    identities = Identities(audiences, storage.enrolled_keys)
    stack.push_async_callback(identities.close)
    check = reference_check(settings, secrets.check)
    kept = await kept_at_start(storage.policies, trail)
    policies = await open_policies(settings, check, identities, trail, kept)
    follower = PolicyFollower(storage.policies, policies.put_beside, policies.doubt, kept)
    limiter = Limiter(open_counts(settings, storage))
    stack.push_async_callback(limiter.counts.close)
    return _Opened(
        settings,
        worker,
        keys,
        trail,
        storage,
        vault,
        secrets,
        identities,
        policies,
        follower,
        limiter,
    )


def _join(opened: _Opened) -> Broker:
    """Make a broker of the opened parts. Does no I/O."""
    settings, storage, trail = opened.settings, opened.storage, opened.trail
    tokens = TaskTokens(opened.keys.signing, settings.issuer, settings.gateway_url)
    grants = Grants(tokens, lambda: opened.policies.current)
    dependencies = _dependencies(opened, tokens)
    desk = LeaseDesk(
        store=storage.leases,
        providers=Minters(InstalledPlugins(), dependencies),
        sealer=opened.keys.master,
        trail=trail,
        clock=time.time,
    )
    proxied = Proxied(desk, grants.is_revoked)
    authority = Authority(opened.policies, grants, dependencies, proxied)
    leases = Leases(desk, policy=authority.policy, grant=authority.parent, limiter=opened.limiter)
    registry = CollectorRegistry()
    registry.register(opened.limiter)
    gateway = _gateway(opened, authority, registry)

    def learn(news: Sequence[Revocation], as_of: float) -> None:
        grants.learn(news, as_of)
        if news:
            gateway.cut(grants.is_revoked)
            proxied.forget(grants.is_revoked)
            desk.wake.set()  # the store has marked what is to end with them

    revocations = Revocations(storage.revocations, learn)
    tally = None
    if opened.worker is not None:
        board, seat = opened.worker.scoreboard, opened.worker.number
        tally = Tally(registry, board, seat, partial(unwell, opened.policies, trail))
    control = ControlPlane(
        _exchange(opened, authority, tokens),
        settings.issuer,
        opened.keys.signing.public_jwks,
        _probes(opened, tally),
        registry,
        leases,
        _status(opened, authority, revocations),
        shown=tally,
    )
    return Broker(
        control=create_app(control),
        admin=_admin(opened),
        gateway=gateway,
        policies=opened.policies,
        follower=opened.follower,
        secrets=opened.secrets,
        storage=storage,
        vault=opened.vault,
        reaper=Reaper(desk, desk.wake),
        proxied=proxied,
        grants=grants,
        revocations=revocations,
        tally=tally,
        limiter=opened.limiter,
    )


def _dependencies(opened: _Opened, tokens: TaskTokens) -> Dependencies:
    """Return what providers are given."""
    return Dependencies(
        ProviderSecrets(opened.secrets),
        http.client,
        time.time,
        opened.vault.calls if opened.vault else None,
        SealedState(opened.storage.states, opened.keys.master),
        lambda audience: Secret(tokens.vouch(audience, time.time()).encode()),
    )


def _probes(opened: _Opened, tally: Tally | None) -> Mapping[str, Callable[[], Awaitable[Health]]]:
    return probes(
        opened.policies,
        opened.trail,
        opened.storage,
        opened.identities,
        opened.limiter.counts,
        opened.vault,
        tally,
    )


def _admin(opened: _Opened) -> ASGIApp | None:
    settings = opened.settings
    if settings.admin.port is None:
        return None
    check = reference_check(settings, opened.secrets.check)
    return admin_app(
        settings,
        storage=opened.storage,
        trail=opened.trail,
        policies=opened.policies,
        follower=opened.follower,
        judged_by=judges(settings, check, opened.identities),
    )


def _exchange(opened: _Opened, authority: Authority, tokens: TaskTokens) -> Exchange:
    settings = opened.settings
    return Exchange(
        identities=opened.identities,
        policy=authority.policy,
        parent=authority.parent,
        storage=opened.storage,
        tokens=tokens,
        trail=opened.trail,
        issuer=settings.issuer,
        targets=(settings.issuer, settings.token_endpoint, settings.gateway_url),
        limiter=opened.limiter,
    )


def _status(opened: _Opened, authority: Authority, revocations: Revocations) -> TokenStatus:
    settings = opened.settings
    return TokenStatus(
        identities=opened.identities,
        policy=authority.policy,
        grant=authority.parent,
        revoke=revocations.revoke,
        storage=opened.storage,
        trail=opened.trail,
        issuer=settings.issuer,
        audience=settings.gateway_url,
    )


def _gateway(opened: _Opened, authority: Authority, registry: CollectorRegistry) -> GatewayServer:
    settings = opened.settings
    metrics = GatewayMetrics()
    registry.register(metrics)
    return GatewayServer(
        authority,
        opened.trail,
        resource=Resource(settings.gateway_url, settings.issuer),
        redact_path=redact_path,
        limits=_limits(settings),
        metrics=metrics,
        protected=_protected(settings),
        limiter=opened.limiter,
    )


def _trail(settings: Settings, keys: KeySet, name: str) -> AuditTrail:
    rotation = Rotation(settings.audit.rotate_size, settings.audit.rotate_age)
    place = Places(settings.home).audit
    trusted = trusted_keys(keys)
    return AuditTrail(Journal(place, keys.signer, trusted, writer=name, rotation=rotation))


def _limits(settings: Settings) -> GatewayLimits:
    return replace(
        GatewayLimits(),
        body_bytes=settings.gateway.body_size,
        connections=settings.gateway.connections,
        upstream_connections=settings.gateway.upstream_connections,
        idle_timeout=settings.gateway.idle_timeout,
    )


def _protected(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Return what no service may reach: the broker's own planes, the Vault that has the keys."""
    places = [(settings.control.host, settings.control.port)]
    if settings.admin.port is not None:
        places.append((settings.admin.host, settings.admin.port))
    if settings.vault.address is not None:
        vault = urlsplit(settings.vault.address)
        port = vault.port or (443 if vault.scheme == "https" else 80)
        places.append((str(vault.hostname), port))
    return tuple(places)
