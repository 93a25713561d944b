"""Build the services of a policy: each is what its provider's plugin makes of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError
from broker.model import Service
from broker.policy.diagnosis import unknown, validated
from broker.policy.document import ServiceFields
from broker.policy.references import check_kept_reference, is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from broker.errors import Problem
    from broker.policy.merging import Entry
    from broker.policy.source import Node
    from providers.base import Plugin

_PUBLIC_FILES: Final = frozenset({"ca_file"})
_COMMON: Final = frozenset(ServiceFields.model_fields)


def plugin_of(
    entry: Entry, plugins: Mapping[str, Plugin], problems: list[Problem]
) -> Plugin | None:
    """Return the plugin that a service names, or None after adding what is wrong."""
    what = f"service {entry.name!r}"
    fields = validated(ServiceFields, entry.node.only(_COMMON), what, problems)
    if fields is None:
        return None
    place = entry.node.place_of(["provider"])
    try:
        plugin = plugins[fields.provider]
    except KeyError:
        message = unknown("provider", fields.provider, plugins)
        problems.append(place.problem(f"{what}: {message}"))
        return None
    except ConfigurationError as error:
        problems.append(place.problem(f"{what}: {error}"))
        return None
    taken = _COMMON & plugin.service_model.model_fields.keys()
    if taken:
        message = f"{what}: provider {plugin.kind!r} redefines {', '.join(sorted(taken))}"
        problems.append(place.problem(message))
        return None
    return plugin


def build_service(
    entry: Entry,
    plugin: Plugin,
    check_reference: Callable[[str], None],
    problems: list[Problem],
) -> Service | None:
    """Return the service, or None after adding what is wrong to `problems`."""
    what = f"service {entry.name!r}"
    own = entry.node.without(_COMMON)
    config = validated(plugin.service_model, own, what, problems, also=_COMMON)
    if config is None:
        return None
    try:
        upstream, slots = plugin.upstream(config), plugin.token_slots(config)
        secrets = plugin.secret_references(config)
    except ValueError as error:
        problems.append(entry.place.problem(f"{what}: {error}"))
        return None
    problems.extend(_reference_problems(own, what, secrets, check_reference))
    if is_kept(entry.place.file):
        problems.extend(_reference_problems(own, what, secrets, check_kept_reference))
        problems.extend(_file_problems(own, what))
    if upstream is not None and not plugin.http_rules:
        # A credential is injected only where the rules of its own scopes are enforced.
        message = (
            f"{what}: provider {plugin.kind!r} would have its credential sent to {upstream.host} "
            "under no rules: a provider with an upstream must take allow and deny (http_rules)"
        )
        problems.append(entry.node.place_of(["provider"]).problem(message))
    fields = validated(ServiceFields, entry.node.only(_COMMON), what, problems)
    if fields is not None and fields.timeouts is not None:
        if upstream is None:
            problems.append(
                entry.node.place_of(["timeouts"], key=True).problem(
                    f"{what}: nothing of it is called through the gateway, so 'timeouts' says "
                    "nothing; leave it out"
                )
            )
            return None
        upstream = fields.timeouts.applied_to(upstream)
    return Service(entry.name, plugin.kind, plugin, config, upstream, slots)


def _reference_problems(
    node: Node, what: str, secrets: tuple[str, ...], check_reference: Callable[[str], None]
) -> Iterator[Problem]:
    for secret in dict.fromkeys(secrets):
        try:
            check_reference(secret)
        except ConfigurationError as error:
            yield node.place_of_text(secret).problem(f"{what}: {error}")


def _file_problems(node: Node, what: str) -> Iterator[Problem]:
    """Yield the fields that name a file whose content is sent somewhere, such as `token_file`."""
    if isinstance(node.value, tuple):
        for child in node.value:
            yield from _file_problems(child, what)
    elif isinstance(node.value, dict):
        for name, child in node.value.items():
            if name.endswith("_file") and name not in _PUBLIC_FILES:
                yield node.keys[name].problem(
                    f"{what}, {name}: names a file of the broker's own machine, and may stand in "
                    "policy files alone"
                )
            yield from _file_problems(child, what)
