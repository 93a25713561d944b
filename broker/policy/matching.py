"""Judge requests against the rules of the scopes that a task token lists.

All rules of a grant that can decide a method become one anchored regular expression, so that
a request costs one match. This module is on the gateway's hot path: it imports neither
pydantic nor anything that does I/O.

A scope allows a request if none of its deny rules matches and one of its allow rules does.
Scopes are judged one by one and any of them may allow: a scope means the same whatever it is
granted with, so dropping a scope never widens a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.model import Allow, Deny
from broker.policy.behalf import NOBODY, BehalfRule
from broker.policy.body import NO_BODY, Content, NeedsBody
from broker.policy.canonical import canonical_problem
from broker.policy.query import names_method
from broker.policy.rules import METHODS, Rule, allow_expression, deny_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from broker.model import Decision, Risk
    from broker.policy.body import BodyRule
    from broker.policy.query import QueryRule

__all__ = ["Authorizer", "ScopeRules", "canonical_problem", "open_ended", "risk_of"]

_RANK: Final[dict[Risk | None, int]] = {None: 0, "low": 0, "medium": 1, "high": 2}
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1)."""


@dataclass(frozen=True, slots=True)
class ScopeRules:
    """What one scope says of HTTP requests; `risk` is the scope's own mark, if it has one.

    A scope with a rule for the body has one for the query string, too. `behalf` is looked at by
    whoever asks an `Authorizer`, to leave scopes out.
    """

    name: str
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...] = ()
    query: QueryRule | None = None
    risk: Risk | None = None
    body: BodyRule | None = None
    behalf: BehalfRule = NOBODY


def risk_of(method: str, mark: Risk | None = None) -> Risk:
    """Return the risk of a request: by its method, and at least what its scope marks."""
    risk: Risk = "medium"
    if method in SAFE_METHODS:
        risk = "low"
    elif method == "DELETE":
        risk = "high"
    return max(risk, mark or risk, key=_RANK.__getitem__)


def open_ended(decision: Decision) -> Decision:
    """Return what was decided on a GET that opens a websocket: more than low is its risk.

    What is sent through it afterwards is judged by nobody.
    """
    if isinstance(decision, Allow) and decision.risk == "low":
        return replace(decision, risk="medium")
    return decision


_OTHER_METHOD: Final = Deny(
    "the query string names a method (_method), which many services take in the place of the "
    "request's own; only a scope that lists it under query: lets it through"
)


class _Matcher(NamedTuple):
    """One expression for many rules; `answers[match.lastindex]` belongs to the one that matched.

    `answers[0]` is a denial, which is what a match without an index would get.
    """

    match: Callable[[bytes], re.Match[bytes] | None]
    answers: tuple[Decision, ...]


class _Conditional(NamedTuple):
    """A scope that looks at more than the path."""

    scope: str
    allows: _Matcher
    query: QueryRule
    body: BodyRule | None


class _Judge(NamedTuple):
    """All that can decide requests with one method; `safe` is true where it changes nothing."""

    allows: _Matcher
    conditional: tuple[_Conditional, ...]
    denies: _Matcher
    nothing: Deny
    safe: bool


class Authorizer:
    """Decide requests to one service under the scopes of one grant."""

    __slots__ = ("_judges", "_unknown_method")

    def __init__(self, service: str, scopes: Iterable[ScopeRules]) -> None:
        # Of two scopes that allow the same, the less risky one answers: it alone would do.
        ordered = sorted(scopes, key=lambda scope: (_RANK[scope.risk], scope.name))
        nothing = _nothing(service, ordered)
        named = {rule.method for scope in ordered for rule in (*scope.allow, *scope.deny)}
        judges: dict[tuple[str | None, Risk], _Judge] = {}
        for method in METHODS:
            key = (method if method in named else None, risk_of(method))
            if key not in judges:
                judges[key] = _judge(method, ordered, nothing)
        self._judges: Final = {
            method.encode(): judges[method if method in named else None, risk_of(method)]
            for method in METHODS
        }
        self._unknown_method: Final = Deny(
            "no rule allows this method; methods are upper case, and TRACE and CONNECT never pass",
            allowed=nothing.allowed,
        )

    def judge(self, method: bytes, path: bytes, query: bytes) -> Decision | NeedsBody:
        """Return whether the request is allowed, by which scope and rule, or why not.

        `path` is the raw path of the request, for which `canonical_problem` is None; `query`
        the raw bytes after `?`, or b"". Both are judged as they are, and must be sent so.
        `NeedsBody` says that it depends on the body, for `judge_whole`.
        """
        judge = self._judges.get(method)
        if judge is None:
            return self._unknown_method
        match, answers = judge.allows
        found = match(path)
        if found is not None and not (query and names_method(query)):
            return answers[found.lastindex or 0]
        return _second_look(judge, path, query, None)

    def judge_whole(self, method: bytes, path: bytes, query: bytes, body: Content) -> Decision:
        """Return the same with the body, which must be sent as it is; `NO_BODY` if none comes."""
        decision = self.judge(method, path, query)
        if isinstance(decision, NeedsBody):
            decision = _second_look(self._judges[method], path, query, body)
        if isinstance(decision, NeedsBody):
            raise TypeError("the body is asked for in vain")
        return decision


def _second_look(
    judge: _Judge, path: bytes, query: bytes, body: Content | None
) -> Decision | NeedsBody:
    refusal = judge.nothing
    if judge.allows.match(path) is not None:
        refusal = replace(_OTHER_METHOD, allowed=refusal.allowed)
    needed = 0
    for scope, (match, answers), query_rule, body_rule in judge.conditional:
        found = match(path)
        if found is None:
            continue
        problem = query_rule.problem(query)
        if problem is None and body_rule is not None:
            if body is None:
                needed = max(needed, body_rule.max_bytes)
                continue
            problem = None if judge.safe and body is NO_BODY else body_rule.problem(body)
        if problem is None:
            return answers[found.lastindex or 0]
        refusal = Deny(f"scope {scope}: {problem}", allowed=refusal.allowed)
    if needed:
        return NeedsBody(needed)
    match, answers = judge.denies
    found = match(path)
    return refusal if found is None else answers[found.lastindex or 0]


def _nothing(service: str, scopes: Sequence[ScopeRules]) -> Deny:
    if not scopes:
        return Deny(f"this task token has no scope for the service {service}")
    names = ", ".join(scope.name for scope in scopes)
    return Deny(
        f"no rule of {names} allows this request to {service}",
        allowed=tuple(dict.fromkeys(rule.text for scope in scopes for rule in scope.allow)),
    )


def _judge(method: str, scopes: Sequence[ScopeRules], nothing: Deny) -> _Judge:
    return _Judge(
        allows=_allows(method, [scope for scope in scopes if scope.query is None], nothing),
        conditional=tuple(
            _Conditional(scope.name, _allows(method, [scope], nothing), scope.query, scope.body)
            for scope in scopes
            if scope.query is not None
        ),
        denies=_denies(method, scopes, nothing),
        nothing=nothing,
        safe=method in SAFE_METHODS,
    )


def _allows(method: str, scopes: Sequence[ScopeRules], nothing: Deny) -> _Matcher:
    answers: list[Decision] = [nothing]
    branches = []
    for scope in scopes:
        rules = [rule for rule in scope.allow if rule.names(method)]
        if not rules:
            continue
        risk = risk_of(method, scope.risk)
        answers.extend(Allow(scope.name, rule.text, risk) for rule in rules)
        denied = [deny_expression(rule) for rule in scope.deny if rule.names(method)]
        unless = b"(?!(?:%b)\\Z)" % b"|".join(denied) if denied else b""
        branches.append(unless + _alternatives(allow_expression(rule) for rule in rules))
    return _Matcher(_compile(branches), tuple(answers))


def _denies(method: str, scopes: Sequence[ScopeRules], nothing: Deny) -> _Matcher:
    rules = [(scope.name, rule) for scope in scopes for rule in scope.deny if rule.names(method)]
    denials = (
        Deny(f"scope {name} denies it by its rule {rule.text}", rule.text, nothing.allowed)
        for name, rule in rules
    )
    branches = [_alternatives(deny_expression(rule) for _, rule in rules)] if rules else []
    return _Matcher(_compile(branches), (nothing, *denials))


def _alternatives(expressions: Iterable[bytes]) -> bytes:
    # The empty group after each alternative makes `lastindex` tell which one matched.
    return b"(?:%b)" % b"|".join(b"(?:%b)\\Z()" % one for one in expressions)


def _compile(branches: Sequence[bytes]) -> Callable[[bytes], re.Match[bytes] | None]:
    return re.compile(b"|".join(branches) if branches else b"(?!)").match
