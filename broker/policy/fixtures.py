"""Run the tests that stand beside policies: identity and request, expected decision and rule.

    tests:
      - name: the release bot may read charges
        identity: {source: github-actions, claims: {repository_id: "123456"}}
        request: {scope: stripe.read, method: GET, path: /v1/charges}
        expect: {decision: allow, agent: release-bot, rule: "GET /v1/**"}

A test goes the way of a real request: trust, scopes and reason first, as when a task token
is asked for; then, if it has a `method`, canonical form and rules, as in the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from broker.errors import PolicyError
from broker.model import Allow, Deny, Identity
from broker.policy.body import NO_BODY, Content
from broker.policy.canonical import canonical_problem
from broker.policy.diagnosis import unknown, validated
from broker.policy.document import Name, OidcSourceConfig, Text
from broker.policy.matching import open_ended
from broker.policy.source import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from broker.errors import Problem
    from broker.model import Decision
    from broker.policy.engine import Policy
    from broker.policy.source import Document, Node, Place


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FixtureIdentity(_Model):
    """A workload identity: what its source would have verified. `subject` defaults to `sub`."""

    source: Name
    claims: dict[str, Any] = {}
    subject: Text | None = None


class FixtureRequest(_Model):
    """What is asked for, and what is then requested with it; without `method` nothing is."""

    scope: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    agent: Name | None = None
    reason: Text | None = None
    task: Text | None = None
    ttl: StrictInt | None = None
    service: Name | None = None
    method: Text | None = None
    path: Text | None = None
    query: str = ""
    websocket: StrictBool = False
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    content_type: Text = "application/json"

    @model_validator(mode="after")
    def _whole(self) -> FixtureRequest:
        if (self.method is None) != (self.path is None):
            raise ValueError("give both method and path, or neither")
        if self.websocket and self.method != "GET":
            raise ValueError("a websocket is opened by method: GET")
        return self

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes asked for."""
        return (self.scope,) if isinstance(self.scope, str) else self.scope


class FixtureExpectation(_Model):
    """The answer: what is left out may be anything.

    `rule` is the rule that decided: one of the policy's, "trust", "scope", "reason",
    "lifetime" or "template" where the task token is refused, "canonical" for the path's form,
    or "none" where nothing allows the request.
    """

    decision: Literal["allow", "deny"]
    agent: Name | None = None
    scope: Name | None = None
    rule: Text | None = None
    risk: Literal["low", "medium", "high"] | None = None


class Fixture(_Model):
    """One test of a policy."""

    name: Text
    identity: FixtureIdentity
    request: FixtureRequest
    expect: FixtureExpectation


class _Fixtures(_Model):
    tests: Annotated[tuple[Fixture, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test; `failures` is empty if it passed."""

    name: str
    place: Place
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    decision: Decision
    agent: str | None = None


def run_fixtures(policy: Policy, documents: Iterable[Document]) -> tuple[Result, ...]:
    """Return the result of each test in the documents (`*.test.yaml`).

    Raises:
        PolicyError: when the documents are not such tests, with every problem in them.
    """
    problems: list[Problem] = []
    found = [one for document in documents for one in _fixtures(policy, document, problems)]
    if problems:
        raise PolicyError(tuple(problems))
    return tuple(
        Result(fixture.name, place, tuple(_failures(fixture.expect, _answer(policy, fixture))))
        for fixture, place in found
    )


def _fixtures(
    policy: Policy, document: Document, problems: list[Problem]
) -> Iterator[tuple[Fixture, Place]]:
    for root in read(document, problems):
        fixtures: _Fixtures | None = validated(_Fixtures, root, "policy tests", problems)
        for index, fixture in enumerate(fixtures.tests if fixtures is not None else ()):
            problems.extend(_name_problems(policy, fixture, root, index))
            yield fixture, root.place_of(["tests", index])


def _name_problems(policy: Policy, fixture: Fixture, root: Node, index: int) -> Iterator[Problem]:
    what = f"test {fixture.name!r}"
    if fixture.identity.source not in policy.identity_sources:
        message = unknown("identity source", fixture.identity.source, policy.identity_sources)
        yield root.place_of(["tests", index, "identity", "source"]).problem(f"{what}: {message}")
    service = fixture.request.service
    if service is not None and service not in policy.services:
        message = unknown("service", service, policy.services)
        yield root.place_of(["tests", index, "request", "service"]).problem(f"{what}: {message}")


def _answer(policy: Policy, fixture: Fixture) -> _Answer:
    request = fixture.request
    answer = policy.entitle(
        _identity(policy, fixture.identity),
        request.scopes,
        agent_hint=request.agent,
        ttl=request.ttl,
        reason=request.reason,
        task=request.task,
    )
    if isinstance(answer, Deny):
        return _Answer(answer)
    agent = answer.agent.name
    if request.method is None or request.path is None:
        return _Answer(Allow(" ".join(answer.scopes), "token", "low"), agent)
    path = request.path.encode()
    problem = canonical_problem(path)
    if problem is not None:
        return _Answer(Deny(f"the path {problem}", "canonical"), agent)
    service = request.service or policy.scopes[answer.scopes[0]].service
    scopes = answer.scopes
    if request.websocket:
        scopes = tuple(name for name in scopes if policy.scopes[name].websocket)
    behalf = policy.behalf(service)
    named = behalf.named(
        [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    )
    refusal = behalf.why_not(scopes, named)
    if refusal is not None:
        return _Answer(Deny(refusal, "on_behalf"), agent)
    scopes = behalf.able(scopes, named)
    authorizer = policy.authorizer(scopes, service)
    body = NO_BODY
    if request.body is not None:
        body = Content(request.body.encode(), request.content_type)
    method, query = request.method.encode(), request.query.encode()
    decision = authorizer.judge_whole(method, path, query, body)
    return _Answer(open_ended(decision) if request.websocket else decision, agent)


def _identity(policy: Policy, identity: FixtureIdentity) -> Identity:
    source = policy.identity_sources[identity.source]
    subject = identity.subject or str(identity.claims.get("sub", ""))
    return Identity(
        source=identity.source,
        issuer=source.issuer if isinstance(source, OidcSourceConfig) else identity.source,
        subject=subject,
        claims={"sub": subject, **identity.claims} if subject else identity.claims,
        token_id=subject,
        expires_at=0.0,
        replay="until_exp",
    )


def _failures(expect: FixtureExpectation, answer: _Answer) -> Iterator[str]:
    decision = answer.decision
    allowed = isinstance(decision, Allow)
    actual = {
        "decision": "allow" if allowed else "deny",
        "agent": answer.agent,
        "rule": decision.rule or "none",
        "scope": decision.scope if isinstance(decision, Allow) else None,
        "risk": decision.risk if isinstance(decision, Allow) else None,
    }
    for field, value in actual.items():
        expected = getattr(expect, field)
        if expected is not None and expected != value:
            why = f" ({decision.reason})" if isinstance(decision, Deny) else ""
            yield f"expected {field} {expected!r}, got {value!r}{why}"
