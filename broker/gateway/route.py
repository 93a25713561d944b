"""A service of one policy snapshot, with all that each of its requests needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.gateway.own_keys import key_parameters
from broker.gateway.problems import Refusal
from broker.model import Allow
from broker.policy.matching import canonical_problem

if TYPE_CHECKING:
    from broker.gateway.base import PolicySnapshot, Resource
    from broker.model import Decision, Service
    from broker.policy.body import Content, NeedsBody
    from providers.base import Upstream

    Asked = tuple[tuple[str, ...], bytes, bytes, bytes | None]

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_MOST_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 1 << 10
"""Bytes of path and query together; longer ones would fill the memory, and seldom repeat."""

_PLAIN_HTTP: Final = Refusal(
    "credential_refused",
    "the service is plain http, over which no credential is sent",
    remedy="use https, or say insecure_http: true for this service in the policy",
)


class Route:
    """The way to one service.

    `origin` and `prefix` are what the addresses of its resources begin with at the gateway, as
    agents know that; `origins` are the spellings of the upstream's origin. `pool_key` is all that
    decides whether a connection made for one service will do for another; `via` is the line that
    says that the gateway has sent a request on; `secure` is true where there is TLS on it;
    `refusal` is why none of its requests is let through, if there is a reason.
    """

    __slots__ = (
        "_allowed",
        "base_path",
        "behalf",
        "host",
        "host_line",
        "keys",
        "origin",
        "origins",
        "policy",
        "pool_key",
        "prefix",
        "refusal",
        "secure",
        "service",
        "slots",
        "upstream",
        "via",
    )

    def __init__(
        self,
        policy: PolicySnapshot,
        service: Service,
        upstream: Upstream,
        gateway: Resource | None = None,
    ) -> None:
        host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
        default = upstream.port == _DEFAULT_PORTS[upstream.scheme]
        authority = host if default else f"{host}:{upstream.port}"
        names = (authority, f"{host}:{upstream.port}")
        insecure = upstream.scheme == "http" and not upstream.insecure_http
        self.policy = policy
        self.service = service
        self.upstream = upstream
        self.slots = service.token_slots
        known_as = urlsplit(gateway.url if gateway else "")
        self.origin = f"{known_as.scheme}://{known_as.netloc}".encode() if gateway else b""
        self.prefix = f"{known_as.path.rstrip('/')}/{service.name}".encode()
        self.base_path = upstream.base_path
        self.via = b"Via: 1.1 %b\r\n" % gateway.pseudonym if gateway else b""
        self.host = authority.encode()
        self.host_line = b"Host: %b\r\n" % self.host
        self.origins = tuple(f"{upstream.scheme}://{name}".encode() for name in names)
        self.pool_key = (
            f"{upstream.scheme}://{names[1]} {upstream.ca_file} {upstream.allow_private}"
        )
        self.secure = upstream.scheme == "https"
        self.refusal = _PLAIN_HTTP if insecure else None
        self._allowed: dict[Asked, Allow] = {}
        self.behalf = policy.behalf(service.name)
        self.keys = key_parameters(upstream.host)

    def judge(
        self, scopes: tuple[str, ...], method: bytes, path: bytes, query: bytes | None
    ) -> Decision | NeedsBody | Refusal:
        """Return what policy says of a request, or why its path cannot be judged.

        What was allowed once is remembered: within one policy the answer never changes.
        """
        asked = (scopes, method, path, query)
        allowed = self._allowed.get(asked)
        if allowed is not None:
            return allowed
        problem = canonical_problem(path)
        if problem is not None:
            return _not_canonical(problem)
        rules = self.policy.authorizer(scopes, self.service.name)
        decision = rules.judge(method, path, query or b"")
        if isinstance(decision, Allow) and len(path) + len(query or b"") <= _LONGEST_REMEMBERED:
            if len(self._allowed) >= _MOST_REMEMBERED:
                self._allowed.clear()
            self._allowed[asked] = decision
        return decision

    def judge_whole(
        self,
        scopes: tuple[str, ...],
        asked: tuple[bytes, bytes, bytes | None],
        body: Content,
    ) -> Decision | Refusal:
        """Return what policy says of a request (method, path and query) with its body."""
        method, path, query = asked
        problem = canonical_problem(path)
        if problem is not None:
            return _not_canonical(problem)
        rules = self.policy.authorizer(scopes, self.service.name)
        return rules.judge_whole(method, path, query or b"", body)

    def open_to_websockets(self, scopes: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the scopes that policy lets open a websocket."""
        known = self.policy.scopes
        return tuple(name for name in scopes if name in known and known[name].websocket)


def _not_canonical(problem: str) -> Refusal:
    return Refusal("path_not_canonical", f"the path after the service's name {problem}")
