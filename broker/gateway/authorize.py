"""Judge a request: its task token, the grant behind it, and policy once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from broker.gateway.problems import Refusal
from broker.gateway.slots import BEARER, Presented, find_token
from broker.model import Allow
from broker.policy.matching import canonical_problem

if TYPE_CHECKING:
    from broker.gateway.base import Authority, PolicySnapshot, Resource
    from broker.gateway.request import Request
    from broker.model import Grant, Service
    from providers.base import Upstream

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class Route:
    """A service of one policy snapshot, with what each of its requests needs.

    `origins` are the spellings of the upstream's origin; `pool_key` is all that decides whether
    a connection made for one service will do for another.
    """

    __slots__ = (
        "base_path",
        "host_line",
        "origins",
        "pool_key",
        "prefix",
        "service",
        "slots",
        "upstream",
    )

    def __init__(self, service: Service, upstream: Upstream) -> None:
        host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
        default = upstream.port == _DEFAULT_PORTS[upstream.scheme]
        authority = host if default else f"{host}:{upstream.port}"
        self.service = service
        self.upstream = upstream
        self.slots = service.token_slots
        self.prefix = b"/" + service.name.encode()
        self.base_path = upstream.base_path
        self.host_line = f"Host: {authority}\r\n".encode()
        names = (authority, f"{host}:{upstream.port}")
        self.origins = tuple(f"{upstream.scheme}://{name}".encode() for name in names)
        self.pool_key = (
            upstream.scheme,
            upstream.host,
            upstream.port,
            upstream.ca_file,
            upstream.allow_private,
        )


class Admission(NamedTuple):
    """A request that policy allows: for whom, where to, and by which rule.

    `path` is the raw path after the service's name: the bytes that were judged.
    """

    request: Request
    route: Route
    grant: Grant
    decision: Allow
    path: bytes
    policy: PolicySnapshot


class Rejection(NamedTuple):
    """A request that goes no further, with what is known of it for the audit trail."""

    refusal: Refusal
    service: str | None = None
    path: bytes | None = None
    grant: Grant | None = None
    policy_version: str | None = None


class Authorization:
    """Decide on requests by the policy in force at that moment."""

    def __init__(self, authority: Authority, resource: Resource) -> None:
        self._authority = authority
        self._resource = resource
        self._policy: PolicySnapshot | None = None
        self._routes: dict[bytes, Route] = {}

    def decide(self, request: Request) -> Admission | Rejection:
        """Return the admission of a request, or why it goes no further."""
        name, slash, rest = request.path[1:].partition(b"/")
        path = slash + rest
        policy = self._authority.policy()
        if policy is not self._policy:
            self._adopt(policy)
        route = self._routes.get(name)
        presented = _presented(request, route)
        if presented is None:
            return Rejection(_token_missing(request.query))
        grant = self._authority.grant(presented.token)
        if isinstance(grant, str):
            return Rejection(Refusal("token_invalid", f"the task token was refused: {grant}"))
        if route is None:
            refusal = self._service_unknown(name, policy, grant)
            return Rejection(refusal, None, None, grant, policy.version)
        unfit = _unfit(presented, request, route, path)
        if unfit is not None:
            return Rejection(unfit, route.service.name, path, grant, policy.version)
        rules = policy.authorizer(grant.scopes, route.service.name)
        decision = rules.judge(request.method, path, request.query or b"")
        if isinstance(decision, Allow):
            return Admission(request, route, grant, decision, path, policy)
        would_do = _would_do(policy, route, grant.agent, request, path)
        refusal = Refusal(
            "policy_denied",
            decision.reason,
            decision.rule,
            decision.allowed,
            would_do,
            self._how_to_ask(would_do, grant.agent),
        )
        return Rejection(refusal, route.service.name, path, grant, policy.version)

    def _adopt(self, policy: PolicySnapshot) -> None:
        self._policy = policy
        self._routes = {
            service.name.encode(): Route(service, service.upstream)
            for service in policy.services.values()
            if service.upstream is not None
        }

    def _how_to_ask(self, scopes: tuple[str, ...], agent: str) -> str:
        if scopes:
            names = " or ".join(scopes)
            return f"ask {self._resource.issuer}/token for a task token with the scope {names}"
        return (
            f"no scope of the agent {agent} allows this; whoever keeps the policy can see why "
            f"with: broker policy explain --agent {agent} --scope SCOPE METHOD PATH"
        )

    def _service_unknown(self, name: bytes, policy: PolicySnapshot, grant: Grant) -> Refusal:
        known = name.decode("ascii", "replace")
        if known in policy.services:
            detail = f"the service {known} hands out credentials and is not called through here"
        else:
            detail = "the first segment of the path is not the name of a service"
        services = sorted(
            {policy.scopes[scope].service for scope in grant.scopes if scope in policy.scopes}
        )
        return Refusal(
            "service_unknown",
            detail,
            remedy=f"call {self._resource.url}/<service>/<path>; the services of this task token: "
            + (", ".join(services) or "none"),
        )


def _presented(request: Request, route: Route | None) -> Presented | None:
    derived = request.fields.derived
    known = derived.get(route)
    if known is None and route not in derived:
        known = find_token(request.fields, BEARER if route is None else route.slots)
        derived[route] = known
    return known if isinstance(known, Presented) else None


def _would_do(
    policy: PolicySnapshot, route: Route, name: str, request: Request, path: bytes
) -> tuple[str, ...]:
    """Return the scopes that the agent could ask for and that would allow the request."""
    agent, query = policy.agents.get(name), request.query or b""
    return tuple(
        scope
        for scope in (agent.scopes if agent else ())
        if isinstance(
            policy.authorizer((scope,), route.service.name).judge(request.method, path, query),
            Allow,
        )
    )


def _token_missing(query: bytes | None) -> Refusal:
    detail = "the request holds no task token"
    if query and b"token=" in query:
        detail += "; a token in the query string is never read (RFC 6750, 2.3)"
    return Refusal("token_missing", detail, remedy="send it as Authorization: Bearer <task token>")


def _unfit(presented: Presented, request: Request, route: Route, path: bytes) -> Refusal | None:
    if presented.misplaced or presented.token in (request.query or b"") or presented.token in path:
        return Refusal(
            "token_misplaced",
            "the task token also stands where it would be sent on to the service",
            remedy="send it in one place alone, such as Authorization: Bearer <task token>",
        )
    problem = canonical_problem(path)
    if problem is not None:
        return Refusal("path_not_canonical", f"the path after the service's name {problem}")
    if request.fields.upgrades:
        return Refusal("upgrade_refused", "no scope of this service allows another protocol")
    upstream = route.upstream
    if upstream.scheme == "http" and not upstream.insecure_http:
        return Refusal(
            "credential_refused",
            "the service is plain http, over which no credential is sent",
            remedy="use https, or say insecure_http: true for this service in the policy",
        )
    return None
