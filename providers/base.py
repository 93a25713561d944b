"""The contract between the broker and a provider plugin.

A provider turns a grant into a credential for one service. It is one file,
`providers/<kind>.py`, whose module name is the policy's `provider:` value and which
defines `PLUGIN`, a `Plugin`. It imports this module, what stands beside it for several kinds
(`bearer`, `denial`, `signing`, `state`, `tokens`) and third-party libraries alone; everything
else it needs arrives through `Dependencies`.

This module is on the gateway's hot path: it imports the standard library only.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NamedTuple,
    NoReturn,
    Protocol,
    runtime_checkable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from providers.denial import Denial
    from providers.signing import Signer
    from providers.state import SharedState

Delivery = Literal["proxy", "credential"]
SlotKind = Literal["bearer", "basic", "header", "query", "cookie"]


class Secret:
    """Hold secret bytes so that no accident prints, pickles or times them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value: Final = value

    def reveal(self) -> bytes:
        """Return the secret itself; call it only where the bytes leave for their destination."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> NoReturn:
        raise TypeError("a Secret is not hashable: a hash of it would reveal equality")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not pickle")


class ProviderError(Exception):
    """Say why no credential could be supplied, in words that hold no secret.

    `retryable` is true where the same call may succeed later (a time-out, a rate limit);
    `code` is the upstream's own error code, where it gave one. `untouched` says that the call
    certainly made nothing that would have to be ended; by itself, what may succeed later does
    not.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        code: str | None = None,
        untouched: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.code = code
        self.untouched = not retryable if untouched is None else untouched


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a service's requests go.

    `base_path` is the raw path prefix without a trailing slash (b"" for none). Private,
    loopback and metadata addresses are refused unless `allow_private`; a credential is
    never written into plain http unless `insecure_http`. `scrub` says that a credential which
    comes back in a response is replaced. Times are in seconds.
    """

    scheme: Literal["https", "http"]
    host: str
    port: int
    base_path: bytes = b""
    allow_private: bool = False
    insecure_http: bool = False
    scrub: bool = True
    ca_file: str | None = None
    connect_timeout: float = 10.0
    first_byte_timeout: float = 120.0
    idle_timeout: float = 120.0


class BaseUrl(NamedTuple):
    """Where a service is; `path` is as in `Upstream.base_path`."""

    scheme: Literal["https", "http"]
    host: str
    port: int
    path: bytes


_BASE_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?(?P<path>(/[A-Za-z0-9._~!$&'()*+,=:@-]+)*)/?"
)


def parse_base_url(text: str) -> BaseUrl:
    """Return the parts of a `base_url` as a policy may write it; raise `ValueError` otherwise."""
    match = _BASE_URL.fullmatch(text)
    if match is None:
        raise ValueError(
            "base_url: expected https://host[:port][/path] in lower case, without user "
            "information, query or fragment; an international name in its xn-- form"
        )
    path = match["path"]
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise ValueError("base_url: its path has a dot segment; write the path it leads to")
    scheme: Literal["https", "http"] = "https" if match["scheme"] == "https" else "http"
    port = int(match["port"] or (443 if scheme == "https" else 80))
    if not 0 < port < 65536:  # noqa: PLR2004 - the range of ports
        raise ValueError(f"base_url: {port} is not a port; ports go from 1 to 65535")
    return BaseUrl(scheme, match["host"].strip("[]"), port, path.encode())


def upstream_of(service: Any) -> Upstream:
    """Return where a service with a `base_url` has its requests go; raises as `parse_base_url`."""
    return Upstream(
        *parse_base_url(service.base_url),
        allow_private=service.allow_private,
        insecure_http=service.insecure_http,
        scrub=service.scrub in {True, "on"},
        ca_file=service.ca_file,
    )


@dataclass(frozen=True, slots=True)
class TokenSlot:
    """A place in a request where an agent's client puts what it believes is its API key.

    The gateway accepts the task token there, and removes it. `name` is the header, query
    parameter or cookie name in lower-case bytes (for `basic` and `bearer`: b"authorization");
    `prefix` precedes the token in a header's value (b"Token " for `Authorization: Token ...`).
    For `basic` the token may be the user name or the password.
    """

    kind: SlotKind
    name: bytes
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class Injection:
    """Wire-ready credential material for one upstream request.

    `headers` are complete header values; `query` values are percent-encoded already;
    `cookies` are cookie-value bytes. Whatever the agent sent under the same names is removed
    first. `signer` signs each request instead, where the credential itself does not travel.
    `secrets` are what went into them, as they are: by these the gateway knows the credential
    again in a response. `fresh_for` is how long, in seconds, the gateway may reuse this value.
    """

    headers: tuple[tuple[bytes, Secret], ...] = ()
    query: tuple[tuple[bytes, Secret], ...] = ()
    cookies: tuple[tuple[bytes, Secret], ...] = ()
    secrets: tuple[Secret, ...] = ()
    signer: Signer | None = None
    fresh_for: float = 0.0


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """What a credential is asked for: who, for which grant, under which constraints.

    `constraints` is the provider's own scope model, templates already filled in.
    `lifetime` is the number of seconds the grant still lives.
    """

    service: str
    agent: str
    grant: str
    scope: str
    task: str | None
    lifetime: int
    constraints: Any


@dataclass(frozen=True, slots=True)
class Minted:
    """A short-lived credential minted for one grant.

    `fields` are its parts by their upstream names (`AccessKeyId`, `token`, ...), `expires_at`
    is in seconds since the epoch. `handle` is what `revoke` and `renew` need; it is kept
    encrypted and shown to nobody. `renewable` says that `renew` may move `expires_at`.
    """

    fields: Mapping[str, Secret]
    expires_at: float
    handle: Mapping[str, str] = field(default_factory=dict, repr=False)
    renewable: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    """A hold on a credential that does not exist yet.

    Revoking `handle` ends whatever is minted with `secret`, and keeps anything from being
    minted with it later; `secret` stays in memory.
    """

    handle: Mapping[str, str] = field(repr=False)
    secret: Secret


class SecretReader(Protocol):
    """Resolve secret references (`vault:...`, `embedded:...`, `env:...`, `file:...`)."""

    async def read(self, reference: str) -> Secret:
        """Return the secret's current value; raise `ProviderError` if it cannot be had."""
        ...


class VaultCalls(Protocol):
    """Call the Vault or OpenBao that the broker is logged in to."""

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: Secret | None = None,
        repeat: bool = True,
    ) -> Mapping[str, Any]:
        """Return the JSON answer of `/v1/<path>`, {} where there is none.

        As the broker itself, or with another `token`. While Vault cannot answer the call is
        repeated a few times, unless `repeat` is false: then it is made once. Raises
        `ProviderError`, whose `code` is the HTTP status where Vault has answered.
        """
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a provider is given: secrets, an HTTP client factory, a wall clock, and a Vault.

    `http` makes an `httpx.AsyncClient` that the caller closes. It takes `ca_file`,
    `allow_private` and `allow_loopback_http`, and without them reaches public addresses over
    TLS alone; what it keeps a request from reaching is a `ProviderError`. `vault` is None where
    the broker's settings name none. `state` is what must be remembered across processes.
    `vouch` makes a token, good for minutes, by which the broker proves who it is to an audience;
    whoever it is for verifies it by the broker's issuer and published keys.
    """

    secrets: SecretReader
    http: Callable[..., Any]
    clock: Callable[[], float]
    vault: VaultCalls | None = None
    state: SharedState | None = None
    vouch: Callable[[str], Secret] | None = None


class Injects(Protocol):
    """A provider whose credential stays inside: the gateway writes it into the request."""

    async def injection(self, request: CredentialRequest) -> Injection:
        """Return what to write into the upstream request; raise `ProviderError` if it cannot."""
        ...


@runtime_checkable
class Mints(Protocol):
    """A provider that can hand a short-lived, downscoped credential to the agent."""

    async def mint(self, request: CredentialRequest) -> Minted:
        """Mint a credential for this grant alone; raise `ProviderError` if it cannot."""
        ...


@runtime_checkable
class Reserves(Protocol):
    """A provider that knows how to end a credential before there is one.

    Its handle is kept before anything is minted, so that a crash at any point leaves nothing
    that could not be ended.
    """

    async def reserve(self, request: CredentialRequest) -> Reserved:
        """Take a hold under which one credential can be minted."""
        ...

    async def mint_reserved(self, request: CredentialRequest, reserved: Reserved) -> Minted:
        """Mint the credential under the hold; its handle ends both."""
        ...


@runtime_checkable
class Presents(Protocol):
    """A provider that mints, and knows how what it minted is written into requests.

    The gateway then has a credential minted for a grant as an agent would (`Mints`, `Reserves`):
    once, with a lease, ended with the grant, at revocation or by the reaper after a crash. The
    provider keeps nothing.
    """

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:
        """Return what to write into the requests of a grant while `minted` is good.

        Does no I/O. How long it stays fresh is for the broker to say. Raise `ProviderError` if
        it cannot be written into a request.
        """
        ...


@runtime_checkable
class Revocable(Protocol):
    """A provider whose minted credentials can be ended before they expire."""

    async def revoke(self, handle: Mapping[str, str]) -> None:
        """End the credential; succeed if it has ended already."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """A provider whose minted credentials can be made to live longer."""

    async def renew(self, handle: Mapping[str, str], lifetime: int) -> float:
        """Let the credential live `lifetime` seconds from now, or as long as it may.

        Return when it ends then, in seconds since the epoch. A `ProviderError` that is not
        retryable says that it cannot live longer than it does.
        """
        ...


Provider = Injects | Mints | Reserves


@dataclass(frozen=True, slots=True)
class Templated:
    """Mark a text in a scope model that may hold templates: `Annotated[str, Templated()]`.

    `alphabet` is the inside of a regular expression's character class. A value with any other
    character never gets in: the request is denied, and nothing is escaped.
    """

    alphabet: str = "A-Za-z0-9._-"


@dataclass(frozen=True, slots=True)
class Plugin:
    """Describe one kind of provider to policy (its fields) and to the broker (how to build it).

    `service_model` and `scope_model` are pydantic models of the fields that a service and a
    scope of this kind take beside the common ones; both forbid unknown fields. `http_rules`
    says that a scope takes `allow`/`deny` rules where it is delivered through the gateway, and
    `upstream_field` which field of a service tells where that leads. The callables take a
    validated `service_model` instance and do no I/O. `least_lifetime` is how many seconds a
    minted credential lives even if less is asked for; `needs_vault` that `Dependencies.vault`
    must be there. `denial` is for credentials that nobody can revoke.
    """

    kind: str
    service_model: type[Any]
    scope_model: type[Any]
    deliveries: frozenset[Delivery]
    http_rules: bool
    build: Callable[[Any, Dependencies], Provider]
    upstream: Callable[[Any], Upstream | None]
    token_slots: Callable[[Any], tuple[TokenSlot, ...]]
    secret_references: Callable[[Any], tuple[str, ...]]
    max_lifetime: int | None = None
    least_lifetime: int = 0
    needs_vault: bool = False
    upstream_field: str = "base_url"
    denial: Callable[[Any], Denial] | None = None
