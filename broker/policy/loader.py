"""Turn policy documents into a `Policy`, or into the list of all that is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import PolicyError
from broker.policy import references
from broker.policy.agents import build_agent, build_sources
from broker.policy.diagnosis import unknown
from broker.policy.engine import Policy, PolicyParts
from broker.policy.lint import advice
from broker.policy.merging import merge, version_of
from broker.policy.plugins import InstalledPlugins
from broker.policy.scopes import build_scope, no_way_to, scope_fields
from broker.policy.services import build_service, plugin_of
from broker.policy.source import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.errors import Problem
    from broker.model import Service
    from broker.policy.agents import BuiltAgent
    from broker.policy.document import SourceConfig
    from broker.policy.merging import Entry, Sections
    from broker.policy.scopes import BuiltScope
    from providers.base import Plugin

__all__ = ["Document", "load_policy"]


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
    sections = merge(documents, problems)
    installed = InstalledPlugins() if plugins is None else plugins
    sources = build_sources(sections["identity_sources"], problems)
    kinds = {
        name: plugin
        for name, entry in sections["services"].items()
        if (plugin := plugin_of(entry, installed, problems)) is not None
    }
    services = _services(sections["services"], kinds, check_reference, problems)
    scopes = _scopes(sections, kinds, services, problems)
    agents = _agents(sections, sources, problems)
    if problems:
        ordered = sorted(problems, key=lambda one: (one.file, one.line, one.column, one.message))
        raise PolicyError(tuple(dict.fromkeys(ordered)))
    return Policy(
        PolicyParts(
            version=version_of(sections),
            identity_sources=sources,
            services=services,
            scopes={name: built.scope for name, built in scopes.items()},
            agents={name: built.agent for name, built in agents.items()},
            trust={name: built.trust for name, built in agents.items()},
            rules={name: built.rules for name, built in scopes.items() if built.rules},
            templates={name: built.template for name, built in scopes.items() if built.template},
            advice=lambda policy: advice(policy, sections),
        )
    )


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
    sections: Sections,
    kinds: Mapping[str, Plugin],
    services: Mapping[str, Service],
    problems: list[Problem],
) -> dict[str, BuiltScope]:
    scopes = {}
    for name, entry in sections["scopes"].items():
        fields = scope_fields(entry, problems)
        if fields is None:
            continue
        if fields.service not in sections["services"]:
            message = unknown("service", fields.service, sections["services"])
            place = entry.node.place_of(["service"])
            problems.append(place.problem(f"scope {name!r}: {message}"))
        elif fields.service in kinds:
            scope = build_scope(entry, fields, kinds[fields.service], problems)
            problem = no_way_to(entry, fields, services.get(fields.service))
            if problem is not None:
                problems.append(problem)
            if scope is not None:
                scopes[name] = scope
    return scopes


def _agents(
    sections: Sections, sources: Mapping[str, SourceConfig], problems: list[Problem]
) -> dict[str, BuiltAgent]:
    built = {
        name: build_agent(
            entry, sections["identity_sources"], sources, sections["scopes"], problems
        )
        for name, entry in sections["agents"].items()
    }
    return {name: agent for name, agent in built.items() if agent is not None}
