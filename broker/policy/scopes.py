"""Build the scopes of a policy: their rules, their constraints, and what they must not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.model import Scope
from broker.policy.behalf import NOBODY
from broker.policy.diagnosis import validated
from broker.policy.document import ScopeFields
from broker.policy.matching import ScopeRules
from broker.policy.overlap import covers
from broker.policy.query import METHOD_NAMES, QueryRule
from broker.policy.templates import parse_templates
from broker.twins import twin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.errors import Problem
    from broker.model import Service
    from broker.policy.merging import Entry
    from broker.policy.rules import Rule
    from broker.policy.templates import ConstraintTemplate
    from providers.base import Plugin

_COMMON: Final = frozenset(ScopeFields.model_fields)
_RULE_FIELDS: Final = ("allow", "deny", "query", "body", "websocket", "on_behalf")
_GATEWAY_LIMITS: Final = ("concurrent", "request_bytes", "response_bytes")


@dataclass(frozen=True, slots=True)
class BuiltScope:
    """A scope, with its rules where its provider has such, and its template if it holds any."""

    scope: Scope
    rules: ScopeRules | None
    template: ConstraintTemplate | None


def scope_fields(entry: Entry, problems: list[Problem]) -> ScopeFields | None:
    """Return what every scope says, or None after adding what is wrong to `problems`."""
    fields: ScopeFields | None = validated(
        ScopeFields, entry.node.only(_COMMON), f"scope {entry.name!r}", problems
    )
    return fields


def build_scope(
    entry: Entry, fields: ScopeFields, plugin: Plugin, problems: list[Problem]
) -> BuiltScope | None:
    """Return the scope of a service with this plugin, or None after adding what is wrong."""
    what = f"scope {entry.name!r}"
    before = len(problems)
    problems.extend(_rule_problems(entry, fields, plugin, what))
    problems.extend(_delivery_problems(entry, fields, plugin, what))
    problems.extend(_limit_problems(entry, fields, what))
    own = entry.node.without(_COMMON)
    template = parse_templates(plugin.scope_model, own, what, problems)
    # With something harmless in place of each template, so that all else is checked at load.
    constraints = validated(
        plugin.scope_model, own, what, problems, also=_COMMON, content=template.sample()
    )
    if len(problems) > before:
        return None
    allow, deny = fields.allow or (), fields.deny or ()
    body = fields.body
    # What the body may not say could be said in the query string: some servers read either.
    query = QueryRule(fields.query or {}, reserved=(*METHOD_NAMES, *(body.names if body else ())))
    scope = Scope(
        name=entry.name,
        service=fields.service,
        allow=tuple(rule.text for rule in allow),
        deny=tuple(rule.text for rule in deny),
        delivery=frozenset(fields.delivery),
        constraints=template if template.names else constraints,
        max_ttl=fields.max_ttl,
        reason_required=fields.reason == "required",
        risk=fields.risk,
        websocket=fields.websocket is True,
        description=fields.description,
        registries=fields.registries or (),
        limits=fields.limits.compiled() if fields.limits else None,
    )
    judged = plugin.http_rules and "proxy" in fields.delivery
    asked = query if fields.query or body else None
    behalf = fields.on_behalf or NOBODY
    rules = (
        ScopeRules(entry.name, allow, deny, asked, fields.risk, body, behalf) if judged else None
    )
    return BuiltScope(scope, rules, template if template.names else None)


def unfit_for(entry: Entry, fields: ScopeFields, service: Service | None) -> Iterator[Problem]:
    """Yield what is wrong with a scope that is right by itself, but not for its service."""
    if service is None:
        return
    if problem := _no_way_to(entry, fields, service):
        yield problem
    # Authorization may never be listed; a key in the query or in a cookie is no header field.
    keys = {twin(slot.name) for slot in service.token_slots if slot.kind == "header"}
    listed = entry.node.at(["on_behalf"]) if fields.on_behalf else None
    for name, place in listed.keys.items() if listed else ():
        if twin(name.lower().encode()) in keys:
            yield place.problem(
                f"scope {entry.name!r}, on_behalf: {name} holds the task token, in whose place the "
                f"gateway writes the key of service {service.name!r}; it names nobody, so leave it "
                "out"
            )


def _no_way_to(entry: Entry, fields: ScopeFields, service: Service) -> Problem | None:
    """Return what is wrong with a scope whose service the gateway has no way to call."""
    if service.upstream is not None or "proxy" not in fields.delivery:
        return None
    if not service.plugin.http_rules or "proxy" not in service.plugin.deliveries:
        return None  # such a scope allows nothing there, which is said elsewhere
    return entry.node.place_of(["delivery"]).problem(
        f"scope {entry.name!r}: nothing can be called through the gateway, for service "
        f"{service.name!r} has no {service.plugin.upstream_field}; write delivery: [credential], "
        "or where it is"
    )


def _rule_problems(
    entry: Entry, fields: ScopeFields, plugin: Plugin, what: str
) -> Iterator[Problem]:
    if not plugin.http_rules:
        for name in _RULE_FIELDS:
            if getattr(fields, name) is not None:
                message = f"{what}: a scope of provider {plugin.kind!r} takes no {name!r}"
                yield entry.node.place_of([name], key=True).problem(message)
        return
    if "proxy" not in fields.delivery and "credential" in plugin.deliveries:
        for name in _RULE_FIELDS:
            if getattr(fields, name) is not None:
                yield entry.node.place_of([name], key=True).problem(
                    f"{what}: {name!r} binds nobody who has the credential itself; leave it out, "
                    "or write delivery: [proxy]"
                )
        return
    if fields.allow is None:
        yield entry.place.problem(
            f"{what}: field 'allow' is missing; to mean everything, write allow: [\"* /**\"]"
        )
        return
    yield from _vain_fields(entry, fields, fields.allow, what)


def _vain_fields(
    entry: Entry, fields: ScopeFields, allow: tuple[Rule, ...], what: str
) -> Iterator[Problem]:
    if fields.websocket and fields.body is not None:
        yield entry.node.place_of(["body"], key=True).problem(
            f"{what}: 'body' says nothing of what is sent through a websocket; make two scopes"
        )
    if fields.websocket and not any(rule.names("GET") for rule in allow):
        yield entry.node.place_of(["websocket"]).problem(
            f"{what}: a websocket is opened by GET, and no rule under allow is for GET; add one "
            'for its path, such as "GET /v1/realtime"'
        )
    for index, rule in enumerate(allow):
        denied = next((deny for deny in fields.deny or () if covers(deny, rule)), None)
        if denied is not None:
            yield entry.node.place_of(["allow", index]).problem(
                f"{what}: {rule.text!r} can never allow anything: {denied.text!r} denies it all"
            )


def _delivery_problems(
    entry: Entry, fields: ScopeFields, plugin: Plugin, what: str
) -> Iterator[Problem]:
    if fields.registries is not None and "credential" not in fields.delivery:
        yield entry.node.place_of(["registries"], key=True).problem(
            f"{what}: 'registries' name where its credential is used, and nobody gets that; leave "
            "it out, or write delivery: [credential]"
        )
    for delivery in fields.delivery:
        if delivery not in plugin.deliveries:
            possible = " or ".join(sorted(plugin.deliveries))
            why = ": its credential is no short-lived one" if delivery == "credential" else ""
            yield entry.node.place_of(["delivery"]).problem(
                f"{what}: provider {plugin.kind!r} has no delivery {delivery!r}{why}; "
                f"write delivery: [{possible}]"
            )


def _limit_problems(entry: Entry, fields: ScopeFields, what: str) -> Iterator[Problem]:
    """Tell which limits could only be kept where requests pass."""
    if "proxy" in fields.delivery or fields.limits is None:
        return
    for name in _GATEWAY_LIMITS:
        if getattr(fields.limits, name) is not None:
            yield entry.node.place_of(["limits", name], key=True).problem(
                f"{what}, limits: {name!r} binds nobody who has the credential itself; limit how "
                "many are handed out (rate, total), or write delivery: [proxy]"
            )
