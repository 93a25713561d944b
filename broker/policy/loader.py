"""Turn policy documents into a `Policy`, or into the list of all that is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.errors import PolicyError
from broker.policy import references
from broker.policy.agents import build_agent, build_sources
from broker.policy.diagnosis import unknown
from broker.policy.engine import Policy, PolicyParts
from broker.policy.lint import advice
from broker.policy.merging import merge, version_of
from broker.policy.plugins import InstalledPlugins
from broker.policy.scopes import build_scope, scope_fields, unfit_for
from broker.policy.services import build_service, plugin_of
from broker.policy.source import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from broker.errors import Problem
    from broker.model import Service
    from broker.policy.agents import BuiltAgent
    from broker.policy.document import SourceConfig
    from broker.policy.merging import Entry, Sections
    from broker.policy.scopes import BuiltScope
    from providers.base import Plugin

__all__ = ["Document", "find_problems", "load_policy"]


def load_policy(
    documents: Iterable[Document],
    *,
    plugins: Mapping[str, Plugin] | None = None,
    check_reference: Callable[[str], None] = references.check_reference,
) -> Policy:
    """Return the policy that the documents make together. Does no I/O.

    `plugins` are the providers by kind (default: those installed); `check_reference` raises
    `ConfigurationError` for a text that is no secret reference, and must not repeat it.

    Raises:
        PolicyError: with every problem found in any document, ordered by place.
    """
    problems: list[Problem] = []
    built = _build(documents, plugins, check_reference, {}, problems)
    if problems:
        raise PolicyError(_ordered(problems))
    sections, scopes, agents = built.sections, built.scopes, built.agents
    return Policy(
        PolicyParts(
            version=version_of(sections),
            identity_sources=built.sources,
            services=built.services,
            scopes={name: built.scope for name, built in scopes.items()},
            agents={name: built.agent for name, built in agents.items()},
            trust={name: built.trust for name, built in agents.items()},
            rules={name: built.rules for name, built in scopes.items() if built.rules},
            templates={name: built.template for name, built in scopes.items() if built.template},
            advice=lambda policy: advice(policy, sections),
        )
    )


def find_problems(
    documents: Iterable[Document],
    assumed: Mapping[str, frozenset[str]],
    *,
    plugins: Mapping[str, Plugin] | None = None,
    check_reference: Callable[[str], None] = references.check_reference,
) -> tuple[Problem, ...]:
    """Return what is wrong with the documents, if entries of these names were there and right.

    `assumed` are names by section. An entry of such a name is not looked at, and neither are the
    scopes of such a service but for what every scope says. The other arguments are as of
    `load_policy`.
    """
    problems: list[Problem] = []
    _build(documents, plugins, check_reference, assumed, problems)
    return _ordered(problems)


@dataclass(frozen=True, slots=True)
class _Built:
    sections: Sections
    sources: dict[str, SourceConfig]
    services: dict[str, Service]
    scopes: dict[str, BuiltScope]
    agents: dict[str, BuiltAgent]


def _build(
    documents: Iterable[Document],
    plugins: Mapping[str, Plugin] | None,
    check_reference: Callable[[str], None],
    assumed: Mapping[str, frozenset[str]],
    problems: list[Problem],
) -> _Built:
    sections = merge(documents, problems)
    for section, names in assumed.items():
        for name in names:
            sections[section].pop(name, None)
    known = {
        section: entries.keys() | assumed.get(section, frozenset())
        for section, entries in sections.items()
    }
    installed = InstalledPlugins() if plugins is None else plugins
    sources = build_sources(sections["identity_sources"], problems)
    kinds = {
        name: plugin
        for name, entry in sections["services"].items()
        if (plugin := plugin_of(entry, installed, problems)) is not None
    }
    services = _services(sections["services"], kinds, check_reference, problems)
    return _Built(
        sections,
        sources,
        services,
        _scopes(sections["scopes"], known["services"], kinds, services, problems),
        _agents(sections["agents"], known, sources, problems),
    )


def _ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    ordered = sorted(problems, key=lambda one: (one.file, one.line, one.column, one.message))
    return tuple(dict.fromkeys(ordered))


def _services(
    entries: Mapping[str, Entry],
    kinds: Mapping[str, Plugin],
    check_reference: Callable[[str], None],
    problems: list[Problem],
) -> dict[str, Service]:
    built = {
        name: build_service(entries[name], plugin, check_reference, problems)
        for name, plugin in kinds.items()
    }
    return {name: service for name, service in built.items() if service is not None}


def _scopes(
    entries: Mapping[str, Entry],
    known: Collection[str],
    kinds: Mapping[str, Plugin],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> dict[str, BuiltScope]:
    scopes = {}
    for name, entry in entries.items():
        fields = scope_fields(entry, problems)
        if fields is None:
            continue
        if fields.service not in known:
            message = unknown("service", fields.service, known)
            place = entry.node.place_of(["service"])
            problems.append(place.problem(f"scope {name!r}: {message}"))
        elif fields.service in kinds:
            scope = build_scope(entry, fields, kinds[fields.service], problems)
            problems.extend(unfit_for(entry, fields, services.get(fields.service)))
            if scope is not None:
                scopes[name] = scope
    return scopes


def _agents(
    entries: Mapping[str, Entry],
    known: Mapping[str, Collection[str]],
    sources: Mapping[str, SourceConfig],
    problems: list[Problem],
) -> dict[str, BuiltAgent]:
    built = {
        name: build_agent(entry, known["identity_sources"], sources, known["scopes"], problems)
        for name, entry in entries.items()
    }
    return {name: agent for name, agent in built.items() if agent is not None}
