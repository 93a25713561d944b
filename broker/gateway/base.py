"""What the gateway asks of the rest of the broker."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.model import Agent, Decision, Deny, Grant, Scope, Service
    from broker.policy.behalf import Behalf
    from broker.policy.body import Content, NeedsBody
    from providers.base import Injection

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"


class Judge(Protocol):
    """The rules of one set of scopes on one service, compiled."""

    def judge(self, method: bytes, path: bytes, query: bytes) -> Decision | NeedsBody:
        """Decide on a request whose raw `path` is in canonical form, or ask for its body."""
        ...

    def judge_whole(self, method: bytes, path: bytes, query: bytes, body: Content) -> Decision:
        """Decide on it with its body."""
        ...


class PolicySnapshot(Protocol):
    """One loaded policy; it never changes, and a new one has another `version`."""

    @property
    def version(self) -> str:
        """The digest that names this policy."""
        ...

    @property
    def services(self) -> Mapping[str, Service]:
        """Every service by name."""
        ...

    @property
    def scopes(self) -> Mapping[str, Scope]:
        """Every scope by name."""
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Every agent by name."""
        ...

    def authorizer(self, scopes: tuple[str, ...], service: str) -> Judge:
        """Return the compiled rules that these scopes have for the service."""
        ...

    def behalf(self, service: str) -> Behalf:
        """Return what the scopes of a service say of on whose behalf requests may be."""
        ...

    def constraints(self, scope: str, grant: Grant) -> Any | Deny:
        """Return the provider's constraints of a scope for one grant, templates filled in."""
        ...


class Authority(Protocol):
    """Whatever the gateway needs to know in order to decide on a request."""

    def grant(self, token: bytes, digest: bytes, *, again: bool = False) -> Grant | str:
        """Return the grant behind a task token, or one word for why there is none.

        `digest` is the token's SHA-256, worked out once for all requests that present it; `again`
        says that it is asked once more for the same request.
        A word of `problems.KINDS` is the refusal itself, any other what is wrong with the token.
        Its scopes are those that the policy in force still gives its agent. Called for each
        request from the event loop, so it does no I/O.
        """
        ...

    def policy(self) -> PolicySnapshot:
        """Return the policy in force."""
        ...

    async def injection(
        self, policy: PolicySnapshot, service: Service, scope: str, grant: Grant
    ) -> Injection:
        """Return what to write into a grant's requests to a service, as `policy` judged them.

        Raises `ProviderError` if there is no credential for that, now or at all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Resource:
    """The gateway as an OAuth protected resource (RFC 9728): its URL, and who issues tokens.

    `pseudonym` is its name in `Via` (RFC 9110, 7.6.3): the same in each worker and after each
    restart, and another on each machine, so that brokers may stand behind one another.
    """

    url: str
    issuer: str
    pseudonym: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        named = f"{socket.gethostname()}\n{self.url}\n{self.issuer}"
        pseudonym = b"broker-" + hashlib.sha256(named.encode()).hexdigest()[:16].encode()
        object.__setattr__(self, "pseudonym", pseudonym)

    @property
    def metadata_url(self) -> str:
        """Where the metadata of this resource is to be had (RFC 9728, 3)."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{METADATA_PATH}{parts.path.rstrip('/')}"

    def document(self) -> bytes:
        """Return that metadata as JSON (RFC 9728, 2)."""
        return orjson.dumps(
            {
                "resource": self.url,
                "authorization_servers": [self.issuer],
                "bearer_methods_supported": ["header"],
                "resource_name": "Agent Token Broker gateway",
            }
        )
