"""Build the identity sources and agents of a policy: who is trusted, as whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.model import Agent
from broker.policy.diagnosis import unknown, validated
from broker.policy.document import AgentFields, LocalSourceConfig, SourceConfig
from broker.policy.engine import TrustRule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from broker.errors import Problem
    from broker.policy.merging import Entry


@dataclass(frozen=True, slots=True)
class BuiltAgent:
    """An agent and who is trusted to be it."""

    agent: Agent
    trust: tuple[TrustRule, ...]


def build_sources(entries: Mapping[str, Entry], problems: list[Problem]) -> dict[str, SourceConfig]:
    """Return the identity sources that are right; no two may speak for one issuer."""
    sources: dict[str, SourceConfig] = {}
    issuers: dict[str, Entry] = {}
    for name, entry in entries.items():
        what = f"identity source {name!r}"
        config = validated(SourceConfig, entry.node, what, problems)
        if config is None:
            continue
        sources[name] = config
        # A proof is verified by the one source whose issuer it names.
        local = isinstance(config, LocalSourceConfig)
        issuer, field = ("local", "type") if local else (config.issuer, "issuer")
        first = issuers.setdefault(issuer, entry)
        if first is not entry:
            problems.append(
                entry.node.place_of([field]).problem(
                    f"{what} has the same issuer as {first.name!r} at {first.place}"
                )
            )
    return sources


def build_agent(
    entry: Entry,
    sources: Collection[str],
    configs: Mapping[str, SourceConfig],
    scopes: Collection[str],
    problems: list[Problem],
) -> BuiltAgent | None:
    """Return the agent, or None after adding what is wrong to `problems`.

    `sources` and `scopes` are all that are named, `configs` the sources that are right.
    """
    what = f"agent {entry.name!r}"
    fields: AgentFields | None = validated(AgentFields, entry.node, what, problems)
    if fields is None:
        return None
    before = len(problems)
    problems.extend(_trust_problems(entry, fields, sources, configs, what))
    for index, scope in enumerate(fields.scopes):
        if scope not in scopes:
            place = entry.node.place_of(["scopes", index])
            problems.append(place.problem(f"{what}: {unknown('scope', scope, scopes)}"))
    if len(problems) > before:
        return None
    trust = tuple(TrustRule(one.source, one.claims or {}) for one in fields.trust)
    limits = fields.limits.compiled() if fields.limits else None
    agent = Agent(entry.name, fields.scopes, fields.max_ttl, fields.description, limits)
    return BuiltAgent(agent, trust)


def _trust_problems(
    entry: Entry,
    fields: AgentFields,
    sources: Collection[str],
    configs: Mapping[str, SourceConfig],
    what: str,
) -> Iterator[Problem]:
    for index, trust in enumerate(fields.trust):
        if trust.source not in sources:
            place = entry.node.place_of(["trust", index, "source"])
            message = unknown("identity source", trust.source, sources)
            yield place.problem(f"{what}: {message}")
        elif trust.claims is None and not isinstance(
            configs.get(trust.source), LocalSourceConfig | None
        ):
            place = entry.node.place_of(["trust", index])
            yield place.problem(
                f"{what}: field 'claims' is missing: without it every identity of "
                f"{trust.source!r} would be this agent"
            )
