"""Look at everything that a broker depends on, and say what must be mended and how."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal

import httpx

from broker import http
from broker.app.backends import open_backends, open_vault, reference_check
from broker.app.counts import open_counts
from broker.app.home import Places, open_keys, open_storage
from broker.app.identities import Identities
from broker.app.listeners import bind
from broker.changes.edits import documents_of
from broker.errors import (
    BrokerError,
    ConfigurationError,
    LimitsUnavailable,
    PolicyError,
    UpstreamError,
)
from broker.files import private_database, private_directory, read_private
from broker.identity.base import Audiences
from broker.keys.sealing import master_key_file
from broker.policy.document import OidcSourceConfig
from broker.policy.loader import load_policy
from broker.reload import read_policies
from broker.secrets.reader import Secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Sized
    from pathlib import Path

    from broker.app.home import Keys
    from broker.model import Lease
    from broker.policy.engine import Policy
    from broker.settings import Settings
    from broker.storage.base import Storage

MOST_SKEW: Final = 15.0
"""How far, in seconds, our clock may be from another's: half of what proofs are forgiven."""


State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found: all is well, something to reconsider, or something to mend."""

    subject: str
    state: State
    text: str


async def check_up(settings: Settings) -> AsyncIterator[Finding]:
    """Look at files, keys, stores, policy, secrets, issuers, Vault, clocks and ports."""
    for finding in _files(Places(settings.home)):
        yield finding
    try:
        keys = open_keys(settings)
    except BrokerError as error:
        yield Finding("keys", "problem", str(error))
        return  # what is sealed cannot be looked at, and the rest depends on it
    yield Finding("keys", "ok", f"all open with master key {keys.master.key_id}")
    try:
        async for finding in _stores_and_policy(settings, keys):
            yield finding
    except BrokerError as error:
        yield Finding("stores", "problem", str(error))
    if settings.vault.address is not None:
        ca_file = None if settings.vault.ca_file is None else str(settings.vault.ca_file)
        yield await _clock("vault", f"{settings.vault.address}/v1/sys/health", ca_file)
    yield await _ports(settings)


def _files(places: Places) -> Iterator[Finding]:
    directories = (places.home, places.keys, places.data, places.audit, places.agents)
    keys = (master_key_file(places.home), places.signing_keys, places.audit_keys)
    looks: list[tuple[Callable[[Path], object], Path]] = [
        *((private_directory, path) for path in directories),
        *((read_private, path) for path in (*keys, *sorted(places.agents.glob("*.pem")))),
        *((private_database, path) for path in (places.database, places.secrets, places.limits)),
    ]
    problems = 0
    for look, path in looks:
        if not path.exists() and not path.is_symlink():
            continue  # absence is for those to tell who need it, and looking must create nothing
        try:
            look(path)
        except ConfigurationError as error:
            problems += 1
            yield Finding("files", "problem", str(error))
    if not problems and places.home.exists():
        yield Finding("files", "ok", f"what is in {places.home} is yours alone")


async def _stores_and_policy(settings: Settings, keys: Keys) -> AsyncIterator[Finding]:
    async with AsyncExitStack() as stack:
        storage = open_storage(settings)
        stack.push_async_callback(storage.close)
        vault = open_vault(settings)
        secrets = Secrets(open_backends(settings, keys.master, vault))
        stack.push_async_callback(secrets.close)
        yield Finding("stores", "ok", "the database and the embedded store can be read")
        yield _leases(await storage.leases.leases())
        try:
            check = reference_check(settings, secrets.check)
            kept = documents_of(await storage.policies.kept())
            documents = read_policies(settings.policies) + kept
            policy = load_policy(documents, check_reference=check)
            identities = Identities(
                Audiences(settings.issuer, settings.token_endpoint), storage.enrolled_keys
            )
            stack.push_async_callback(identities.close)
            identities.prepare(policy)
        except PolicyError as error:
            for problem in error.problems:
                yield Finding("policy", "problem", str(problem))
            return
        if settings.limits.url is not None:
            yield await _limits(settings, storage)
        if policy.warnings:
            told = f"{_number(policy.warnings, 'warning')}; see `broker policy check`"
            yield Finding("policy", "warning", told)
        yield Finding("policy", "ok", _size(policy))
        for service in policy.services.values():
            if service.plugin.needs_vault and vault is None:
                told = f"service {service.name} needs a Vault: set address in the table [vault]"
                yield Finding("policy", "problem", f"{told} of broker.toml")
        async for finding in _secrets(policy, secrets):
            yield finding
        async for finding in _issuers(policy, identities):
            yield finding


async def _limits(settings: Settings, storage: Storage) -> Finding:
    """Say whether the brokers' common counts can be reached."""
    counts = open_counts(settings, storage)
    try:
        await counts.check()
    except LimitsUnavailable as error:
        told = f"{error}; while it cannot count, requests that have limits are refused"
        return Finding("limits", "problem", told)
    finally:
        await counts.close()
    return Finding("limits", "ok", "the server that counts for all brokers answers")


def _leases(leases: Sequence[Lease]) -> Finding:
    """Say which credentials should have ended and have not, or may exist without being known."""
    attempted = [one for one in leases if one.attempts]
    stuck = [one for one in attempted if one.standing == "revoking"]
    alive = [one for one in attempted if one.standing == "unrevocable"]
    unknown = [one for one in attempted if one.state == "intent"]
    worst = stuck or alive or unknown
    if not worst:
        return Finding("leases", "ok", f"{_number(leases, 'credential')} out, none overdue")
    if stuck:
        what = "cannot be revoked yet"
    elif alive:
        left = max(one.expires_at for one in alive) - time.time()
        what = f"should have ended and can only expire, the last in {max(0.0, left):.0f} s"
    else:
        what = "may have been minted, and nobody knows"
    told = f"{_number(worst, 'credential')} {what}; see `broker leases`. The latest: "
    return Finding("leases", "problem" if stuck else "warning", told + (worst[-1].problem or ""))


def _size(policy: Policy) -> str:
    parts = {
        "service": policy.services,
        "scope": policy.scopes,
        "agent": policy.agents,
        "identity source": policy.identity_sources,
    }
    return ", ".join(_number(things, noun) for noun, things in parts.items())


def _number(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


async def _secrets(policy: Policy, secrets: Secrets) -> AsyncIterator[Finding]:
    found = 0
    for service in policy.services.values():
        for reference in service.plugin.secret_references(service.config):
            try:
                await secrets.read(reference)
                found += 1
            except BrokerError as error:
                # The broker may have an environment that this command has not.
                state: State = "warning" if reference.startswith("env:") else "problem"
                yield Finding("secrets", state, f"{service.name} needs {reference}: {error}")
    if found:
        yield Finding("secrets", "ok", f"{found} of them can be read")


async def _issuers(policy: Policy, identities: Identities) -> AsyncIterator[Finding]:
    for name, config in policy.identity_sources.items():
        if not isinstance(config, OidcSourceConfig):
            continue
        subject = f"issuer {name}"
        try:
            await identities.probe(policy, name)
        except UpstreamError as error:
            yield Finding(subject, "problem", str(error))
            continue
        place = config.jwks_uri or f"{config.issuer.rstrip('/')}/.well-known/openid-configuration"
        yield await _clock(subject, place, config.ca_file)


async def _clock(subject: str, url: str, ca_file: str | None) -> Finding:
    """Compare our clock with that of the server at `url`, which answers in any case."""
    async with http.client(ca_file=ca_file, allow_private=True, allow_loopback_http=True) as client:
        try:
            response = await client.get(url)
        except (httpx.HTTPError, UpstreamError) as error:
            return Finding(subject, "problem", f"{url} does not answer ({type(error).__name__})")
    try:
        theirs = parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return Finding(subject, "ok", "answers; it tells no time")
    ahead = time.time() - theirs
    if abs(ahead) > MOST_SKEW:
        return Finding(
            subject,
            "problem",
            f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
            "it, and proofs are judged by time; synchronise it, as with: timedatectl set-ntp true",
        )
    return Finding(subject, "ok", "answers, and its clock agrees with this machine's")


async def _ports(settings: Settings) -> Finding:
    try:
        bind(settings).close()
    except ConfigurationError as error:
        return await _whose_port(settings, error)
    return Finding("ports", "ok", "free; the broker is not running")


async def _whose_port(settings: Settings, taken: ConfigurationError) -> Finding:
    """Ask what has our port whether it is this broker, and how it is."""
    async with http.client(allow_private=True, allow_loopback_http=True) as client:
        try:
            document = f"{settings.control_url}/.well-known/oauth-authorization-server"
            issuer = (await client.get(document)).json()["issuer"]
            ready = (await client.get(f"{settings.control_url}/readyz")).json()
        except (httpx.HTTPError, UpstreamError, ValueError, KeyError):
            return Finding("ports", "problem", str(taken))
    if issuer != settings.issuer:
        return Finding("ports", "problem", f"{taken}; a broker that calls itself {issuer} has it")
    unwell = [
        f"{name}: {check.get('reason', check['state'])}"
        for name, check in ready["checks"].items()
        if check["state"] != "ok"
    ]
    if unwell:
        return Finding("broker", "problem", f"is running, but {'; '.join(unwell)}")
    return Finding("broker", "ok", "is running, and well")
