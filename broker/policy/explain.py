"""Say, step by step, how policy comes to its answer about one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.errors import ConfigurationError, did_you_mean
from broker.model import Deny
from broker.policy.body import NO_BODY, Content
from broker.policy.canonical import canonical_problem
from broker.policy.matching import SAFE_METHODS, open_ended
from broker.policy.rules import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.model import Decision
    from broker.policy.behalf import Behalf
    from broker.policy.body import BodyRule
    from broker.policy.engine import Policy
    from broker.policy.matching import ScopeRules
    from broker.policy.query import QueryRule
    from broker.policy.rules import Rule


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at: what kind, which, what came of it, and whether that decided."""

    kind: str
    subject: str
    finding: str
    decisive: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the gateway gets it, without the service's name; `query` has no `?`.

    `websocket` says that it is to open one; `headers` are names of fields in lower case, and their
    values; `body` is what it brings.
    """

    method: str
    path: bytes
    query: bytes = b""
    websocket: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: Content = NO_BODY


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps in their order, and the decision, which is the gateway's own."""

    steps: tuple[Step, ...]
    decision: Decision


def explain(policy: Policy, agent: str, scope: str, request: Request) -> Explanation:
    """Explain what `agent` with a task token for `scope` alone would be answered.

    Raises:
        ConfigurationError: when the policy has no such agent or scope.
    """
    _require(policy.agents, "agent", agent)
    _require(policy.scopes, "scope", scope)
    steps = tuple(_until_decided(_steps(policy, agent, scope, request)))
    return Explanation(steps, _decision(policy, agent, scope, request))


def _require(known: Mapping[str, object], kind: str, name: str) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(f"the policy has no {kind} {name!r}{hint}")


def _decision(policy: Policy, agent: str, scope: str, request: Request) -> Decision:
    may_have = policy.agents[agent].scopes
    if scope not in may_have:
        return Deny(f"agent {agent} may not have {scope}", "scope", may_have)
    problem = canonical_problem(request.path)
    if problem is not None:
        return Deny(f"the path {problem}", "canonical")
    refusal = _websocket_problem(policy, scope, request)
    if refusal is not None:
        return Deny(refusal, "websocket")
    service = policy.scopes[scope].service
    behalf = policy.behalf(service)
    refusal = behalf.why_not((scope,), behalf.named(request.headers))
    if refusal is not None:
        return Deny(refusal, "on_behalf")
    authorizer = policy.authorizer((scope,), service)
    method = request.method.encode()
    decision = authorizer.judge_whole(method, request.path, request.query, request.body)
    return open_ended(decision) if request.websocket else decision


def _until_decided(steps: Iterator[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if step.decisive:
            return


def _steps(policy: Policy, agent: str, scope: str, request: Request) -> Iterator[Step]:
    held = scope in policy.agents[agent].scopes
    yield Step("agent", agent, f"may have {scope}" if held else f"may not have {scope}", not held)
    declared = policy.scopes[scope]
    provider = policy.services[declared.service].provider
    rules, proxied = policy.rules.get(scope), "proxy" in declared.delivery
    through = "through the gateway" if proxied else "not through the gateway"
    yield Step("service", declared.service, f"{provider}, {through}", not proxied or rules is None)
    yield from _limit_steps(policy, agent, scope)
    known = request.method in METHODS
    yield Step(
        "method", request.method, "can be allowed" if known else "is never allowed", not known
    )
    problem = canonical_problem(request.path)
    path = request.path.decode("ascii", "backslashreplace")
    yield Step("path", path, problem or "is in canonical form", problem is not None)
    if request.websocket:
        refusal = _websocket_problem(policy, scope, request)
        finding = refusal or "may be opened by a GET that is allowed"
        yield Step("websocket", scope, finding, refusal is not None)
    if rules is not None:
        yield from _behalf_steps(policy.behalf(declared.service), rules, request)
        yield from _rule_steps(rules, request)


def _websocket_problem(policy: Policy, scope: str, request: Request) -> str | None:
    if not request.websocket:
        return None
    if request.method != "GET":
        return "a websocket is opened by GET and nothing else"
    if not policy.scopes[scope].websocket:
        return f"scope {scope} does not say websocket: true"
    return None


def _behalf_steps(behalf: Behalf, rules: ScopeRules, request: Request) -> Iterator[Step]:
    named = behalf.named(request.headers)
    if named or rules.behalf.names:
        refused = rules.behalf.problem(named)
        fields = ", ".join(name.decode("ascii", "backslashreplace") for name, _ in named)
        yield Step("on_behalf", fields, refused or "is allowed", refused is not None)


def _limit_steps(policy: Policy, agent: str, scope: str) -> Iterator[Step]:
    """Tell what is counted; how far it has been used is known to the running broker alone."""
    for owner, limits in (
        (f"scope {scope}", policy.scopes[scope].limits),
        (f"agent {agent}", policy.agents[agent].limits),
    ):
        for text in limits.texts if limits is not None else ():
            yield Step("limit", owner, text)


def _rule_steps(rules: ScopeRules, request: Request) -> Iterator[Step]:
    for rule in rules.deny:
        finding = _finding(rule, request, deny=True)
        yield Step("deny", rule.text, finding, finding == "matches")
    for rule in rules.allow:
        finding = _finding(rule, request, deny=False)
        yield Step("allow", rule.text, finding, finding == "matches" and rules.query is None)
        if finding == "matches" and rules.query is not None:
            yield from _condition_steps(rules.query, rules.body, request)
    yield Step("allow", "nothing else", "no rule allows it", decisive=True)


def _condition_steps(
    query_rule: QueryRule, body_rule: BodyRule | None, request: Request
) -> Iterator[Step]:
    refused = query_rule.problem(request.query)
    query = request.query.decode("ascii", "backslashreplace")
    last = refused is not None or body_rule is None
    yield Step("query", query, refused or "is allowed", decisive=last)
    if body_rule is not None:
        needless = request.body is NO_BODY and request.method in SAFE_METHODS
        refused = None if needless else body_rule.problem(request.body)
        size = "none" if request.body is NO_BODY else f"{len(request.body.data)} bytes"
        yield Step("body", size, refused or "is allowed", decisive=True)


def _finding(rule: Rule, request: Request, *, deny: bool) -> str:
    if not rule.names(request.method):
        return "is for another method"
    matches = rule.denies(request.path) if deny else rule.allows(request.path)
    return "matches" if matches else "is for another path"
