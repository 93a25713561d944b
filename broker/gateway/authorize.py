"""Judge a request: its task token, the grant behind it, and policy once more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broker.gateway.elsewhere import named_elsewhere, why_not_elsewhere
from broker.gateway.problems import KINDS, Refusal, malformed
from broker.gateway.request import SAFE, Request, RequestFields
from broker.gateway.route import Route
from broker.gateway.slots import BEARER, find_token
from broker.gateway.websocket import Handshake
from broker.limits.quota import quota_of
from broker.model import Allow, Deny, Grant
from broker.policy.body import NO_BODY, NeedsBody
from broker.policy.matching import open_ended

if TYPE_CHECKING:
    from broker.gateway.base import Authority, PolicySnapshot, Resource
    from broker.gateway.grammar import Field
    from broker.gateway.inject import Forwarded
    from broker.gateway.record import Facts
    from broker.limits.quota import Quota
    from broker.model import Decision
    from broker.policy.behalf import Named
    from broker.policy.body import Content

_MISPLACED: Final = Refusal(
    "token_misplaced",
    "the task token also stands where it would be sent on to the service",
    remedy="send it in one place alone, such as Authorization: Bearer <task token>",
)
_UPGRADE_REFUSED: Final = Refusal(
    "upgrade_refused", "no scope of the task token lets a websocket through here"
)
_NOT_A_GET: Final = malformed("a websocket is asked for by GET and nothing else")
_MOST_QUOTAS: Final = 4096


@dataclass(slots=True)
class Claim:
    """The task token that a block of header fields presents to a route, if any.

    `digest` is its SHA-256; `refusal` is why no request with these fields may take that route,
    `elsewhere` are those by which one may name a second place, and `behalf` those by which it may
    say on whose behalf it is.
    """

    token: bytes | None = field(repr=False)
    digest: bytes
    refusal: Refusal | None
    elsewhere: tuple[Field, ...] = ()
    behalf: Named = ()


@dataclass(slots=True)  # not frozen, which would double the cost of making one
class Admission:
    """A request that policy allows: for whom, where to, and by which rule.

    `path` is the raw path after the service's name: the bytes that were judged. `safe` is true
    where the request changes nothing upstream. `handshake` is what it asks for, if that is a
    websocket. `facts` and `forwarded` keep what the audit trail and the upstream are told each
    time it is repeated. `quota` is what it counts against, if its scope or agent
    has limits.
    """

    request: Request
    route: Route
    grant: Grant
    decision: Allow
    path: bytes
    safe: bool = False
    claim: Claim | None = None
    handshake: Handshake | None = None
    facts: Facts | None = None
    forwarded: Forwarded | None = None
    quota: Quota | None = None

    def rejected(self, refusal: Refusal) -> Rejection:
        """Return that the request goes no further, though policy allows it."""
        route = self.route
        return Rejection(refusal, route.service.name, self.path, self.grant, route.policy.version)


class Pending(NamedTuple):
    """A request that policy can judge only with its body, of at most `max_bytes` bytes."""

    request: Request
    route: Route
    grant: Grant
    path: bytes
    max_bytes: int


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
        self._limited = False  # whether the policy has any limits
        self._quotas: dict[tuple[str, str], Quota | None] = {}

    def decide(self, request: Request) -> Admission | Rejection | Pending:
        """Return the admission of a request, or why it goes no further or has to wait."""
        known = request.admission
        # The same request is judged alike while policy and the grant's standing are the same.
        if known is not None and known.route.policy is self._authority.policy():
            claim = known.claim
            if claim is not None and claim.token is not None:
                grant = self._authority.grant(claim.token, claim.digest)
                if grant is known.grant:
                    return known
        return self._decide(request)

    def decide_whole(self, request: Request, body: Content) -> Admission | Rejection:
        """Return the admission of a request with its body, as policy and grant stand by now."""
        verdict = self._decide(request, body)
        if isinstance(verdict, Pending):
            raise TypeError("policy asks for a body that it has")
        request.admission = None  # for the next one with the same head may have another body
        return verdict

    def _decide(
        self, request: Request, body: Content | None = None
    ) -> Admission | Rejection | Pending:
        whole = request.path
        cut = whole.find(b"/", 1)
        name, path = (whole[1:cut], whole[cut:]) if cut > 0 else (whole[1:], b"")
        policy = self._authority.policy()
        if policy is not self._policy:
            self._adopt(policy)
        route = self._routes.get(name)
        claim = request.fields.derived.get(route)
        if claim is None:
            _forget_others(request.fields.derived, policy)
            claim = request.fields.derived[route] = _claim(request.fields, route)
        token, query = claim.token, request.query
        if token is None:
            return Rejection(_token_missing(query))
        grant = self._authority.grant(token, claim.digest, again=body is not None)
        if isinstance(grant, str):
            return Rejection(_token_refused(grant))
        if route is None:
            refusal = self._service_unknown(name, policy, grant)
            return Rejection(refusal, None, None, grant, policy.version)
        misplaced = token in path or (query is not None and token in query)
        unfit: Refusal | None = _MISPLACED if misplaced else claim.refusal
        if unfit is None:
            unfit = self._not_on_behalf(route, grant, claim)
        if unfit is None and claim.elsewhere:
            able = route.behalf.able(grant.scopes, claim.behalf)
            unfit = why_not_elsewhere(claim.elsewhere, route, able, request.method)
        if unfit is not None:
            return _rejection(unfit, route, path, grant)
        if request.fields.handshake is not None:
            return self._decide_on_websocket(request, route, grant, path, claim)
        return self._judge(request, route, grant, path, body)

    def _judge(
        self, request: Request, route: Route, grant: Grant, path: bytes, body: Content | None
    ) -> Admission | Rejection | Pending:
        """Ask policy, with the body if that is here."""
        method, query, claim = request.method, request.query, request.fields.derived[route]
        scopes = route.behalf.able(grant.scopes, claim.behalf)
        if body is None:
            verdict = route.judge(scopes, method, path, query)
        else:
            verdict = route.judge_whole(scopes, (method, path, query), body)
        if isinstance(verdict, Allow):
            safe = method in SAFE
            return self._admitted(Admission(request, route, grant, verdict, path, safe, claim))
        if isinstance(verdict, NeedsBody):
            if not request.fields.has_body:
                return self._judge(request, route, grant, path, NO_BODY)
            return Pending(request, route, grant, path, verdict.max_bytes)
        if isinstance(verdict, Deny):
            holder = route.policy.agents.get(grant.agent)
            may_have = route.behalf.able(holder.scopes if holder else (), claim.behalf)
            would_do = _would_do(route, may_have, (method, path, query), body)
            verdict = self._denial(verdict, grant.agent, would_do)
        return _rejection(verdict, route, path, grant)

    def _decide_on_websocket(
        self, request: Request, route: Route, grant: Grant, path: bytes, claim: Claim
    ) -> Admission | Rejection:
        """Judge a handshake by the scopes alone that say `websocket: true`."""
        handshake, method, query = request.fields.handshake, request.method, request.query
        verdict: Decision | Refusal = claim.refusal or _NOT_A_GET
        if claim.refusal is None and isinstance(handshake, Refusal):
            verdict = handshake
        elif claim.refusal is None and method == b"GET":
            able = route.open_to_websockets(route.behalf.able(grant.scopes, claim.behalf))
            verdict = route.judge_whole(able, (method, path, query), NO_BODY)
            verdict = verdict if isinstance(verdict, Refusal) else open_ended(verdict)
        if isinstance(verdict, Allow) and isinstance(handshake, Handshake):
            admission = Admission(
                request, route, grant, verdict, path, claim=claim, handshake=handshake
            )
            return self._admitted(admission)
        if not isinstance(verdict, Refusal):
            verdict = self._no_websocket(route, grant, path, query)
        return _rejection(verdict, route, path, grant)

    def _no_websocket(
        self, route: Route, grant: Grant, path: bytes, query: bytes | None
    ) -> Refusal:
        holder = route.policy.agents.get(grant.agent)
        able = route.open_to_websockets(holder.scopes if holder else ())
        would_do = " or ".join(_would_do(route, able, (b"GET", path, query), NO_BODY))
        remedy = (
            f"ask {self._resource.issuer}/token for a task token with the scope {would_do}"
            if would_do
            else f"no scope of the agent {grant.agent} allows this path and says websocket: true"
        )
        return replace(_UPGRADE_REFUSED, remedy=remedy)

    def _not_on_behalf(self, route: Route, grant: Grant, claim: Claim) -> Refusal | None:
        """Return why no scope of the service lets a request be on such a behalf, if none does."""
        problem = route.behalf.why_not(grant.scopes, claim.behalf)
        if problem is None:
            return None
        holder = route.policy.agents.get(grant.agent)
        able = route.behalf.able(holder.scopes if holder else (), claim.behalf)
        return self._denial(Deny(problem, "on_behalf"), grant.agent, able)

    def _admitted(self, admission: Admission) -> Admission:
        """Return an admission that knows what it counts against, and is remembered."""
        if self._limited:
            grant, scope = admission.grant, admission.decision.scope
            key = (grant.jti, scope)  # all that it depends on, within one policy
            if key not in self._quotas:
                if len(self._quotas) >= _MOST_QUOTAS:
                    self._quotas.clear()
                self._quotas[key] = quota_of(admission.route.policy, grant, scope)
            admission.quota = self._quotas[key]
        admission.request.admission = admission
        return admission

    def _denial(self, denied: Deny, agent: str, would_do: tuple[str, ...]) -> Refusal:
        """Return what to tell an agent whose task token does not allow a request."""
        if would_do:
            names = " or ".join(would_do)
            remedy = f"ask {self._resource.issuer}/token for a task token with the scope {names}"
        else:
            remedy = (
                f"no scope of the agent {agent} allows this; whoever keeps the policy can see why "
                f"with: broker policy explain --agent {agent} --scope SCOPE METHOD PATH"
            )
        return Refusal(
            "policy_denied", denied.reason, denied.rule, denied.allowed, would_do, remedy
        )

    def _adopt(self, policy: PolicySnapshot) -> None:
        self._policy = policy
        limits = [scope.limits for scope in policy.scopes.values()]
        limits += [agent.limits for agent in policy.agents.values()]
        self._limited = any(one is not None for one in limits)
        self._quotas.clear()
        self._routes = {
            service.name.encode(): Route(policy, service, service.upstream, self._resource)
            for service in policy.services.values()
            if service.upstream is not None
        }

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


def _rejection(refusal: Refusal, route: Route, path: bytes, grant: Grant) -> Rejection:
    return Rejection(refusal, route.service.name, path, grant, route.policy.version)


def _forget_others(derived: dict[Any, Any], policy: PolicySnapshot) -> None:
    """Let go of the routes of other policies, which would all live as long as the connection."""
    for one in [one for one in derived if isinstance(one, Route) and one.policy is not policy]:
        del derived[one]


def _claim(fields: RequestFields, route: Route | None) -> Claim:
    presented = find_token(fields, BEARER if route is None else route.slots)
    if presented is None:
        return Claim(None, b"", None)
    refusal = None if route is None else route.refusal
    if presented.misplaced:
        refusal = _MISPLACED
    digest = sha256(presented.token).digest()
    behalf: Named = ()
    if route is not None:
        behalf = route.behalf.named([(field.key, field.value) for field in fields.fields])
    return Claim(presented.token, digest, refusal, named_elsewhere(fields.fields), behalf)


def _would_do(
    route: Route,
    may_have: tuple[str, ...],
    asked: tuple[bytes, bytes, bytes | None],
    body: Content | None,
) -> tuple[str, ...]:
    """Return the scopes that an agent could ask for and that would allow the request.

    Without its body, those too that could allow it with one.
    """
    return tuple(
        scope
        for scope in may_have
        if isinstance(
            route.judge((scope,), *asked)
            if body is None
            else route.judge_whole((scope,), asked, body),
            Allow | NeedsBody,
        )
    )


def _token_refused(word: str) -> Refusal:
    if word in KINDS:  # it is not the token's fault
        return Refusal(word, "the broker cannot read its own storage; try again later")
    return Refusal("token_invalid", f"the task token was refused: {word}")


def _token_missing(query: bytes | None) -> Refusal:
    detail = "the request holds no task token"
    if query and b"token=" in query:
        detail += "; a token in the query string is never read (RFC 6750, 2.3)"
    return Refusal("token_missing", detail, remedy="send it as Authorization: Bearer <task token>")
