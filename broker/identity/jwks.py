"""Fetch, keep and look up one issuer's keys (OpenID Connect Discovery 1.0, RFC 7517)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from broker.addresses import why_not_issuer_url
from broker.errors import InvalidToken, IssuerUnavailable, UpstreamError
from broker.identity import jwk
from broker.strict_json import NotStrictJson, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRESH_FOR: Final = 300.0
"""Seconds for which keys are used without asking the issuer again."""

MIN_FETCH_INTERVAL: Final = 30.0
"""Seconds between two fetches from one issuer, whatever arrives in between."""

_MAX_DISCOVERY: Final = 64 * 1024
_MAX_KEY_SET: Final = 256 * 1024
_MAX_KEYS: Final = 100


class Fetch(Protocol):
    """GET a URL that a configured issuer named, following no redirect."""

    async def __call__(self, url: str, max_bytes: int, /) -> bytes:
        """Return the body; raise `UpstreamError` if it cannot be had within bounded time."""
        ...


@dataclass(frozen=True, slots=True)
class KeySet:
    """One issuer's keys as it published them at one time; `refused` is why, by `kid`."""

    keys: tuple[jwk.VerificationKey, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def knows(self, kid: str | None) -> bool:
        """Say whether the issuer published something under this `kid`."""
        return kid in self.refused or any(key.kid == kid for key in self.keys)

    def find(self, kid: str | None, algorithm: str) -> jwk.VerificationKey:
        """Return the key named `kid`; without a `kid`, the only one for the algorithm.

        Raise `InvalidToken` if there is none.
        """
        if kid is None:
            candidates = [key for key in self.keys if algorithm in key.algorithms]
            if len(candidates) != 1:
                raise InvalidToken(
                    "missing_kid",
                    f"the token names no key, and {len(candidates)} of the issuer's "
                    f"{len(self.keys)} keys are for {algorithm}",
                )
            return candidates[0]
        if kid in self.refused:
            raise InvalidToken(
                "unusable_key", f"the issuer's key {kid!a} cannot be used: {self.refused[kid]}"
            )
        for key in self.keys:
            if key.kid == kid:
                return key
        raise InvalidToken("unknown_key", f"the issuer publishes no key {kid!a}")


def parse_key_set(data: bytes) -> KeySet:
    """Return the key set in a JWKS document.

    Keys that cannot verify are kept aside with the reason, a `kid` used twice among them.
    Raise `UpstreamError` for a document that is not a JWKS, has over 100 keys, or publishes
    private key material: such an issuer's keys prove nothing.
    """
    published = _json_object("the key set", data).get("keys")
    if not isinstance(published, list):
        raise UpstreamError("the key set has no array 'keys'")
    if len(published) > _MAX_KEYS:
        raise UpstreamError(f"the key set has {len(published)} keys, more than {_MAX_KEYS}")
    usable: list[jwk.VerificationKey] = []
    refused: dict[str, str] = {}
    seen: set[str] = set()
    for entry in published:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        kid = kid if isinstance(kid, str) else None
        try:
            usable.append(jwk.load(entry))
        except jwk.PublishedPrivateKey as error:
            raise UpstreamError(f"the key set is refused: {error}") from None
        except jwk.UnusableKey as error:
            if kid is not None:
                refused[kid] = str(error)
        if kid in seen:
            refused[kid] = "the issuer publishes its kid twice"
        elif kid is not None:
            seen.add(kid)
    return KeySet(tuple(key for key in usable if key.kid not in refused), refused)


class IssuerKeys:
    """One issuer's keys: fetched when needed, at most every 30 s, by one fetch at a time.

    Keys are used for 300 s, then fetched again. While the issuer cannot be reached, or answers
    with nonsense, the last ones serve until they are `stale_for` seconds old; then nothing does.
    `fetch` and `monotonic` (seconds, any origin) are injected.
    """

    def __init__(
        self,
        issuer: str,
        *,
        jwks_uri: str | None,
        stale_for: float,
        fetch: Fetch,
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._stale_for = stale_for
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._next_fetch = float("-inf")
        self._failure = "its keys have not been fetched yet"
        self._under_way: asyncio.Task[None] | None = None

    async def key(self, kid: str | None, algorithm: str) -> jwk.VerificationKey:
        """Return the key that a token names.

        Raise `InvalidToken` if the issuer has no such key, and `IssuerUnavailable` if its keys
        cannot be had and those at hand are older than the bound.
        """
        if self._age() > FRESH_FOR or (kid is not None and not self._current().knows(kid)):
            await self._refresh()
        return self._current().find(kid, algorithm)

    async def probe(self) -> None:
        """Fetch the keys now if that is due; raise `IssuerUnavailable` saying why they fail."""
        await self._refresh()
        self._current()

    def _age(self) -> float:
        return float("inf") if self._keys is None else self._monotonic() - self._fetched_at

    def _current(self) -> KeySet:
        if self._keys is None or self._age() > max(self._stale_for, FRESH_FOR):
            raise IssuerUnavailable(
                f"the keys of the issuer {self._issuer} cannot be had: {self._failure}",
                retryable=True,
            )
        return self._keys

    async def _refresh(self) -> None:
        if self._under_way is None:
            if self._monotonic() < self._next_fetch:
                return
            self._next_fetch = self._monotonic() + MIN_FETCH_INTERVAL
            self._under_way = asyncio.create_task(self._fetch_keys())
            self._under_way.add_done_callback(self._landed)
        # One caller hanging up must not fail the fetch for the others.
        await asyncio.shield(self._under_way)

    def _landed(self, _task: asyncio.Task[None]) -> None:
        self._under_way = None

    async def _fetch_keys(self) -> None:
        try:
            uri = self._jwks_uri or await self._discover()
            self._keys = parse_key_set(await self._fetch(uri, _MAX_KEY_SET))
        except UpstreamError as error:
            self._failure = str(error)
        else:
            self._fetched_at = self._monotonic()

    async def _discover(self) -> str:
        url = f"{self._issuer.removesuffix('/')}/.well-known/openid-configuration"
        document = _json_object(url, await self._fetch(url, _MAX_DISCOVERY))
        if document.get("issuer") != self._issuer:
            raise UpstreamError(
                f"{url} does not name {self._issuer} as its issuer, byte for byte; "
                "correct the source's issuer, or its server's"
            )
        uri = document.get("jwks_uri")
        if not isinstance(uri, str):
            raise UpstreamError(f"{url} names no jwks_uri")
        refusal = why_not_issuer_url(uri)
        if refusal is None and urlsplit(uri).scheme != urlsplit(self._issuer).scheme:
            refusal = "its scheme is not the issuer's"
        if refusal is not None:
            raise UpstreamError(f"the jwks_uri in {url} is refused: {refusal}")
        return uri


def _json_object(what: str, data: bytes) -> dict[str, Any]:
    try:
        value = loads(data)
    except NotStrictJson as error:
        raise UpstreamError(f"{what} is not JSON of one meaning: {error}") from None
    if not isinstance(value, dict):
        raise UpstreamError(f"{what} is not a JSON object")
    return value
