"""Advise against what is allowed but seldom meant: `broker policy check` prints it.

None of this keeps a policy from loading.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from broker.policy.document import OidcSourceConfig
from broker.policy.overlap import covers, overlap
from broker.policy.trust_lint import trust_advice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.errors import Problem
    from broker.model import Agent
    from broker.policy.engine import Policy
    from broker.policy.matching import ScopeRules
    from broker.policy.merging import Sections

_MOST_COMPARISONS: Final = 20_000
"""Of scopes with each other: enough for any policy that a person keeps."""


def advice(policy: Policy, sections: Sections) -> tuple[Problem, ...]:
    """Return what to reconsider in the documents that `policy` was made of, by place."""
    found = [
        *_unused(policy, sections),
        *_everything(policy, sections),
        *_unsafe(policy, sections),
        *_shared_secrets(policy, sections),
        *_loose_denials(policy, sections),
        *trust_advice(policy, sections),
    ]
    return tuple(sorted(found, key=lambda one: (one.file, one.line, one.column, one.message)))


def _unused(policy: Policy, sections: Sections) -> Iterator[Problem]:
    held = {scope for agent in policy.agents.values() for scope in agent.scopes}
    offered = {scope.service for scope in policy.scopes.values()}
    trusted = {trust.source for rules in policy.trust.values() for trust in rules}
    for section, used, message in (
        ("scopes", held, "no agent may have scope {}: list it under an agent's scopes"),
        ("services", offered, "no scope is for service {}: nobody can call it"),
        ("identity_sources", trusted, "no agent trusts identity source {}: it proves nothing"),
    ):
        for name, entry in sections[section].items():
            if name not in used:
                yield entry.place.problem(message.format(repr(name)))


def _everything(policy: Policy, sections: Sections) -> Iterator[Problem]:
    for name, rules in policy.rules.items():
        for index, rule in enumerate(rules.allow):
            if rule.method == "*" and rule.segments == ("**",):
                yield (
                    sections["scopes"][name]
                    .node.place_of(["allow", index])
                    .problem(
                        f"scope {name!r} allows every request that its credential can make; "
                        "list the methods and paths that are needed"
                    )
                )


def _unsafe(policy: Policy, sections: Sections) -> Iterator[Problem]:
    for name, service in policy.services.items():
        if service.upstream is not None and service.upstream.insecure_http:
            place = sections["services"][name].node.place_of(["insecure_http"], key=True)
            yield place.problem(
                f"service {name!r}: insecure_http sends its credential readable over the network"
            )
    for name, source in policy.identity_sources.items():
        if isinstance(source, OidcSourceConfig) and source.allow_extra_audiences:
            node = sections["identity_sources"][name].node
            yield node.place_of(["allow_extra_audiences"], key=True).problem(
                f"identity source {name!r}: whoever else such a token is meant for can use it here"
            )


def _shared_secrets(policy: Policy, sections: Sections) -> Iterator[Problem]:
    """Find secrets that go to a second host, under rules other than the first one's."""
    first: dict[str, tuple[str, str]] = {}
    for name, service in policy.services.items():
        upstream = service.upstream
        if upstream is None:
            continue
        host = f"{upstream.host}:{upstream.port}"
        for secret in service.plugin.secret_references(service.config):
            other, other_host = first.setdefault(secret, (name, host))
            if other_host != host:
                yield (
                    sections["services"][name]
                    .node.place_of_text(secret)
                    .problem(
                        f"service {name!r} sends a secret of service {other!r} to another host: "
                        f"the rules for {other_host} do not bind what {host} can do with it"
                    )
                )


def _loose_denials(policy: Policy, sections: Sections) -> Iterator[Problem]:
    """Find deny rules that an agent gets round with another scope that it holds."""
    bypassed: dict[tuple[str, str], str | None] = {}
    pairs = chain.from_iterable(_pairs(policy, agent) for agent in policy.agents.values())
    for agent, denying, other in islice(pairs, _MOST_COMPARISONS):
        key = (denying.name, other.name)
        if key not in bypassed:
            bypassed[key] = _bypassed(denying, other)
        if bypassed[key] is not None:
            node = sections["agents"][agent.name].node
            place = node.place_of(["scopes", agent.scopes.index(denying.name)])
            yield place.problem(
                f"agent {agent.name!r}: {bypassed[key]!r} of scope {denying.name!r} does not "
                f"bind it, for its scope {other.name!r} allows some of the same"
            )


def _pairs(policy: Policy, agent: Agent) -> Iterator[tuple[Agent, ScopeRules, ScopeRules]]:
    held = [policy.rules[name] for name in agent.scopes if name in policy.rules]
    for denying in held:
        if denying.deny:
            service = policy.scopes[denying.name].service
            for other in held:
                if other is not denying and policy.scopes[other.name].service == service:
                    yield agent, denying, other


def _bypassed(denying: ScopeRules, other: ScopeRules) -> str | None:
    for deny in denying.deny:
        if any(covers(same, deny) for same in other.deny):
            continue
        # A rule takes away what its own scope would allow; the rest of it is a precaution.
        methods = {allow.method for allow in denying.allow if overlap(allow, deny)}
        for allow in other.allow:
            same_method = "*" in {allow.method, *methods} or allow.method in methods
            if methods and same_method and overlap(allow, deny):
                return deny.text
    return None
