"""The identity sources that the policy in force names, kept in step with it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from broker import http
from broker.api.health import OK, Health
from broker.errors import ConfigurationError, IssuerUnavailable, PolicyError, Problem
from broker.identity.local import LocalSource
from broker.identity.oidc import OidcSettings, OidcSource
from broker.identity.resolver import IdentityResolver
from broker.policy.document import OidcSourceConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from broker.identity.base import Audiences, UnverifiedToken
    from broker.model import EnrolledKey, Identity
    from broker.policy.document import SourceConfig
    from broker.policy.engine import Policy

    EnrolledKeys = Callable[[str], Awaitable[tuple[EnrolledKey, ...]]]
    Source = OidcSource | LocalSource

_NOT_OF_THE_SOURCE: Final = {"type", "description"}


class Identities:
    """Verify proofs by the identity sources of the current policy.

    `enrolled` returns the enrolled keys of a local agent. A source that a new policy leaves as
    it was keeps its issuer's keys.
    """

    def __init__(self, audiences: Audiences, enrolled: EnrolledKeys) -> None:
        self._audiences: Final = audiences
        self._enrolled: Final = enrolled
        self._sources: dict[tuple[str, SourceConfig], Source] = {}
        self._clients: dict[tuple[str, SourceConfig], httpx.AsyncClient] = {}
        self._closing: Final[set[asyncio.Task[None]]] = set()
        self._resolver = IdentityResolver(())

    def prepare(self, policy: Policy) -> None:
        """Build the sources that `policy` adds, which `adopt` then puts to use.

        Raises:
            PolicyError: a source cannot be built; the policy must not come into force.
        """
        try:
            IdentityResolver(self._source(*item) for item in policy.identity_sources.items())
        except ConfigurationError as error:
            raise PolicyError((Problem("identity_sources", 1, 1, str(error)),)) from None

    def judge(self, policy: Policy) -> None:
        """Raise as `prepare` does, and keep nothing: this policy may never come into force."""
        try:
            IdentityResolver(
                self._sources.get((name, config)) or self._build(name, config)[0]
                for name, config in policy.identity_sources.items()
            )
        except ConfigurationError as error:
            raise PolicyError((Problem("identity_sources", 1, 1, str(error)),)) from None

    def adopt(self, policy: Policy) -> None:
        """Use the sources of `policy` from now on, and release those that it has not."""
        self._resolver = IdentityResolver(
            self._source(*item) for item in policy.identity_sources.items()
        )
        for gone in self._sources.keys() - policy.identity_sources.items():
            del self._sources[gone]
            client = self._clients.pop(gone, None)
            if client is not None:
                closing = asyncio.get_running_loop().create_task(client.aclose())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def verify(self, token: UnverifiedToken, *, client_id: str | None = None) -> Identity:
        """Return the identity that a proof shows; raises as `IdentityResolver.verify` does."""
        return await self._resolver.verify(token, client_id=client_id)

    async def probe(self, policy: Policy, name: str) -> None:
        """Fetch the keys of a prepared source's issuer; raise `IssuerUnavailable` if it fails."""
        source = self._source(name, policy.identity_sources[name])
        if isinstance(source, OidcSource):
            await source.probe()

    async def health(self) -> Health:
        """Say which issuers' keys cannot be had."""
        remote = [source for source in self._sources.values() if isinstance(source, OidcSource)]
        answers = await asyncio.gather(*map(_problem, remote))
        problems = [answer for answer in answers if answer is not None]
        return Health("degraded", "; ".join(problems)) if problems else OK

    async def close(self) -> None:
        """Release every connection."""
        await asyncio.gather(*self._closing)
        for client in self._clients.values():
            await client.aclose()

    def _source(self, name: str, config: SourceConfig) -> Source:
        key = (name, config)
        if key not in self._sources:
            self._sources[key], client = self._build(name, config)
            if client is not None:
                self._clients[key] = client
        return self._sources[key]

    def _build(self, name: str, config: SourceConfig) -> tuple[Source, httpx.AsyncClient | None]:
        if not isinstance(config, OidcSourceConfig):
            return LocalSource(name, self._enrolled, self._audiences), None
        client = http.client(
            ca_file=config.ca_file,
            allow_private=config.allow_private,
            allow_loopback_http=True,  # policy has refused plain http to any other host
        )
        settings = OidcSettings(**config.model_dump(exclude=_NOT_OF_THE_SOURCE))
        return OidcSource(name, settings, self._audiences, partial(http.get_bytes, client)), client


async def _problem(source: OidcSource) -> str | None:
    try:
        await source.probe()
    except IssuerUnavailable as error:
        return f"{source.name}: {error}"
    return None
