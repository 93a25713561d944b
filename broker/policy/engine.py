"""Answer every question that policy decides: who may ask for what, for how long, and call what.

A `Policy` is an immutable snapshot made by `loader.load_policy`. Rights are only ever
intersected: trust, what was asked for, what the agent may have, what its parent has, what
the provider can give. What is absent is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from broker.model import Deny
from broker.policy.behalf import Behalf
from broker.policy.conditions import ABSENT, Condition, accepts_all, lookup
from broker.policy.document import LocalSourceConfig, is_name
from broker.policy.matching import Authorizer
from broker.policy.templates import claims_named, template_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.errors import Problem
    from broker.model import Agent, Grant, Identity, Scope, Service
    from broker.policy.document import SourceConfig
    from broker.policy.matching import ScopeRules
    from broker.policy.templates import ConstraintTemplate

DEFAULT_LIFETIME: Final = 900
"""Seconds that a task token lives where nothing else is said; without the agent's own
`max_ttl`, also the most."""

_MOST_AUTHORIZERS: Final = 4096


@dataclass(frozen=True, slots=True)
class TrustRule:
    """Which identities of one source are an agent: those whose claims meet all conditions."""

    source: str
    conditions: Mapping[str, Condition]


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What an identity gets: as which agent, which scopes, for how many seconds at most.

    `claims` are those that templates of these scopes need, to be kept with the grant.
    """

    agent: Agent
    scopes: tuple[str, ...]
    lifetime: int
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParts:
    """What a policy is made of; `rules` and `templates` are by scope, `trust` by agent."""

    version: str
    identity_sources: Mapping[str, SourceConfig]
    services: Mapping[str, Service]
    scopes: Mapping[str, Scope]
    agents: Mapping[str, Agent]
    trust: Mapping[str, tuple[TrustRule, ...]]
    rules: Mapping[str, ScopeRules]
    templates: Mapping[str, ConstraintTemplate]
    advice: Callable[[Policy], tuple[Problem, ...]] = lambda _: ()


class Policy:
    """An immutable snapshot of all policy documents, compiled.

    `version` is `sha256:` and the digest of their content; the mappings are by name.
    """

    def __init__(self, parts: PolicyParts) -> None:
        self.version: Final = parts.version
        self.identity_sources: Final = MappingProxyType(parts.identity_sources)
        self.services: Final = MappingProxyType(parts.services)
        self.scopes: Final = MappingProxyType(parts.scopes)
        self.agents: Final = MappingProxyType(parts.agents)
        self.rules: Final = MappingProxyType(parts.rules)
        """The parsed HTTP rules by scope; a scope whose provider has none is not there."""
        self.trust: Final = MappingProxyType(parts.trust)
        """Who is trusted to be each agent, by its name."""
        self._advice: Final = parts.advice
        self._templates: Final = parts.templates
        self._authorizers: Final[dict[tuple[tuple[str, ...], str], Authorizer]] = {}
        self._behalves: Final[dict[str, Behalf]] = {}

    @cached_property
    def warnings(self) -> tuple[Problem, ...]:
        """What to reconsider in the documents; looked for when it is first asked for."""
        return self._advice(self)

    def agent_for(self, identity: Identity, hint: str | None) -> Agent | Deny:
        """Return the one agent that a workload identity is.

        `hint` is the agent that the caller says it is, which must then be right; without it
        the identity must be that of one agent alone. A `Deny` has `rule` "trust", and its
        reason is for the audit trail: callers must not learn which agents exist.
        """
        candidates: Iterable[str] = self.trust
        if hint is not None:
            if hint not in self.trust:
                return Deny("there is no agent of the name asked for", "trust")
            candidates = (hint,)
        found = [name for name in candidates if self._trusts(name, identity)]
        if len(found) == 1:
            return self.agents[found[0]]
        if found:
            names = ", ".join(sorted(found))
            return Deny(f"the identity is that of several agents: {names}; name one", "trust")
        return Deny("no agent's trust accepts the claims of this identity", "trust")

    def _trusts(self, agent: str, identity: Identity) -> bool:
        source = self.identity_sources.get(identity.source)
        # A local key was enrolled for one agent: it never vouches for another.
        if isinstance(source, LocalSourceConfig) and identity.subject != agent:
            return False
        return source is not None and any(
            trust.source == identity.source and accepts_all(trust.conditions, identity.claims)
            for trust in self.trust[agent]
        )

    def entitle(  # noqa: PLR0913 - each is one operand of the intersection
        self,
        identity: Identity,
        requested: tuple[str, ...],
        *,
        agent_hint: str | None,
        ttl: int | None,
        reason: str | None,
        task: str | None = None,
    ) -> Entitlement | Deny:
        """Return what `identity` gets of what it asks for: all of it, or a denial.

        `ttl` is the lifetime asked for in seconds; the answer's is the least of it and all
        limits. The `rule` of a `Deny` says which limit it is: "trust", "scope", "reason",
        "lifetime" or "template"; `allowed` lists the scopes that could be had.
        """
        agent = self.agent_for(identity, agent_hint)
        if isinstance(agent, Deny):
            return agent
        scopes = tuple(dict.fromkeys(requested))
        refusal = self._refuse(scopes, agent.scopes, f"agent {agent.name}", reason)
        if refusal is not None:
            return refusal
        lifetime = self._lifetime(agent, scopes, ttl)
        if lifetime < 1:
            return Deny("the lifetime asked for is none", "lifetime")
        claims = self._claims_for(scopes, identity, agent.name, task)
        if isinstance(claims, Deny):
            return claims
        return Entitlement(agent, scopes, lifetime, claims)

    def narrow(  # noqa: PLR0913 - as above
        self,
        parent: Grant,
        requested: tuple[str, ...],
        *,
        actor: Agent | None,
        ttl: int | None,
        reason: str | None,
        now: int,
    ) -> Entitlement | Deny:
        """Return what can be had of a grant: all of what is asked for, or a denial.

        The rights stay those of the parent's agent, as its claims and task fill templates in,
        and end when the parent's end. Each must be one that this agent still has, and that
        `actor`, the agent that is to use them, has too. `now` is in seconds since the epoch;
        a `Deny` is as `entitle` gives it.
        """
        agent = self.agents.get(parent.agent)
        if agent is None:
            return Deny("the grant's agent is no longer in the policy", "trust")
        holders = (agent,) if actor is None else (agent, actor)
        may_have = tuple(
            name for name in parent.scopes if all(name in holder.scopes for holder in holders)
        )
        scopes = tuple(dict.fromkeys(requested))
        refusal = self._refuse(scopes, may_have, "a grant narrowed from this one", reason)
        if refusal is not None:
            return refusal
        left = parent.expires_at - now
        lifetime = min(left, *(self._lifetime(holder, scopes, ttl) for holder in holders))
        if lifetime < 1:
            return Deny(
                "the lifetime asked for, or what is left of the grant's, is none", "lifetime"
            )
        return Entitlement(agent, scopes, lifetime, parent.claims)

    def _refuse(
        self, scopes: tuple[str, ...], may_have: tuple[str, ...], whose: str, reason: str | None
    ) -> Deny | None:
        refusal = self._refuse_scopes(scopes, may_have, whose)
        return refusal or self._refuse_reason(scopes, reason)

    def _refuse_scopes(
        self, scopes: tuple[str, ...], may_have: tuple[str, ...], whose: str
    ) -> Deny | None:
        if not scopes:
            return Deny("no scope was asked for", "scope", may_have)
        excess = [name for name in scopes if name not in may_have]
        if not excess:
            return None
        # What is no name came from a stranger and goes into no message.
        named = ", ".join(name for name in excess if is_name(name)) or "what was asked for"
        return Deny(f"{whose} may not have {named}", "scope", may_have)

    def _refuse_reason(self, scopes: tuple[str, ...], reason: str | None) -> Deny | None:
        if reason is not None and reason.strip():
            return None
        strict = [name for name in scopes if self.scopes[name].reason_required]
        if not strict:
            return None
        return Deny(f"a reason must be given for {', '.join(strict)}", "reason")

    def _lifetime(self, agent: Agent, scopes: tuple[str, ...], ttl: int | None) -> int:
        limits = [
            DEFAULT_LIFETIME if ttl is None else ttl,
            DEFAULT_LIFETIME if agent.max_ttl is None else agent.max_ttl,
        ]
        for name in scopes:
            scope = self.scopes[name]
            provider_limit = self.services[scope.service].plugin.max_lifetime
            limits += [one for one in (scope.max_ttl, provider_limit) if one is not None]
        return min(limits)

    def _claims_for(
        self, scopes: tuple[str, ...], identity: Identity, agent: str, task: str | None
    ) -> dict[str, Any] | Deny:
        kept: dict[str, Any] = {}
        for name in scopes:
            template = self._templates.get(name)
            if template is None:
                continue
            values = template_values(
                template.names, identity.claims, agent=agent, task=task, grant="-"
            )
            filled = template.fill(values)
            if isinstance(filled, Deny):
                return Deny(f"scope {name}: {filled.reason}", "template")
            for claim in claims_named(template.names):
                value = lookup(identity.claims, claim)
                if value is not ABSENT:
                    kept[claim] = value
        return kept

    def constraints(self, scope: str, grant: Grant) -> Any | Deny:
        """Return the provider's constraints of a scope for one grant, templates filled in.

        What cannot be filled in safely is a `Deny` with `rule` "template".
        """
        template = self._templates.get(scope)
        if template is None:
            return self.scopes[scope].constraints
        values = template_values(
            template.names, grant.claims, agent=grant.agent, task=grant.task, grant=grant.jti
        )
        filled = template.fill(values)
        if isinstance(filled, Deny):
            return Deny(f"scope {scope}: {filled.reason}", "template")
        return filled

    def collectable(self, scope: str, grant: Grant) -> Any | Deny:
        """Return the constraints under which a grant's holder may collect a credential.

        The `rule` of a `Deny` says what stands against it: "scope", "delivery", "reason" or
        "template"; `allowed` are the scopes of the grant whose credentials it may collect,
        `scopes` those that its agent could ask for.
        """
        agent = self.agents.get(grant.agent)
        held = self._delivered(grant.scopes)
        could_ask = self._delivered(agent.scopes if agent else ())
        if scope not in grant.scopes or scope not in self.scopes:
            return Deny(
                "the task token does not have the scope asked for", "scope", held, could_ask
            )
        if scope not in held:
            reason = (
                f"the credential of scope {scope} never leaves the broker: policy says no "
                "delivery: credential of it; call its service through the gateway"
            )
            return Deny(reason, "delivery", held, could_ask)
        refusal = self._refuse_reason((scope,), grant.reason)
        return refusal or self.constraints(scope, grant)

    def _delivered(self, scopes: Iterable[str]) -> tuple[str, ...]:
        known = (self.scopes[name] for name in scopes if name in self.scopes)
        return tuple(scope.name for scope in known if "credential" in scope.delivery)

    def authorizer(self, scopes: tuple[str, ...], service: str) -> Authorizer:
        """Return the judge of requests to `service` under the scopes of a grant.

        Scopes of other services, unknown scopes (of a grant older than this policy) and
        scopes that are not delivered through the gateway allow nothing.
        """
        key = (scopes, service)
        found = self._authorizers.get(key)
        if found is None:
            if len(self._authorizers) >= _MOST_AUTHORIZERS:
                self._authorizers.clear()
            found = Authorizer(service, self._rules_of(scopes, service))
            self._authorizers[key] = found
        return found

    def behalf(self, service: str) -> Behalf:
        """Return what the scopes of a service say of on whose behalf requests may be."""
        found = self._behalves.get(service)
        if found is None:
            rules = {one.name: one.behalf for one in self._rules_of(self.scopes, service)}
            found = self._behalves[service] = Behalf(rules)
        return found

    def _rules_of(self, scopes: Iterable[str], service: str) -> list[ScopeRules]:
        return [
            self.rules[name]
            for name in dict.fromkeys(scopes)
            if name in self.rules
            and self.scopes[name].service == service
            and "proxy" in self.scopes[name].delivery
        ]
