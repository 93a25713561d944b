"""Print the JSON Schema of policy documents: `python -m broker.policy.schema`.

It is made from the models, the fields of every installed provider included, and kept as
`policies/schema.json` for editors. What spans several entries (names that must exist, scopes
that need `allow`) is for `broker policy check`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from broker.policy.document import (
    NAME,
    AgentFields,
    LocalSourceConfig,
    OidcSourceConfig,
    ScopeFields,
    ServiceFields,
)
from broker.policy.plugins import InstalledPlugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from providers.base import Plugin

_PREFIX: Final = "#/$defs/"
_NULL: Final = {"type": "null"}
_UNHELPFUL: Final = frozenset({"title", "discriminator"})
_DATA: Final = frozenset({"const", "default", "enum", "examples", "required"})


def policy_schema(plugins: Mapping[str, Plugin]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a policy document with these providers."""
    kinds = [plugins[kind] for kind in plugins]
    models: list[type[BaseModel]] = [ServiceFields, ScopeFields, AgentFields]
    models += [OidcSourceConfig, LocalSourceConfig]
    models += [model for plugin in kinds for model in (plugin.service_model, plugin.scope_model)]
    names, shared = models_json_schema([(model, "validation") for model in dict.fromkeys(models)])
    definitions = shared["$defs"]

    def of(model: type[BaseModel]) -> dict[str, Any]:
        found: dict[str, Any] = definitions[
            names[model, "validation"]["$ref"].removeprefix(_PREFIX)
        ]
        return found

    service = [_service(one.kind, of(ServiceFields), of(one.service_model)) for one in kinds]
    scope = _scope(of(ScopeFields), [of(one.scope_model) for one in kinds])
    sections = {
        "identity_sources": {"oneOf": [of(OidcSourceConfig), of(LocalSourceConfig)]},
        "services": {"oneOf": service},
        "scopes": scope,
        "agents": of(AgentFields),
    }
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "Policy of the agent token broker.",
        "type": "object",
        "properties": {name: _section(entry) for name, entry in sections.items()},
        "additionalProperties": False,
    }
    return _with_definitions(_tidied(schema), _tidied(definitions))


def _section(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "propertyNames": {"pattern": NAME},
        "additionalProperties": entry,
    }


def _service(kind: str, common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {
        **own,
        "properties": {**common["properties"], "provider": {"const": kind}, **own["properties"]},
        "required": ["provider", *own.get("required", ())],
    }


def _scope(common: dict[str, Any], own: list[dict[str, Any]]) -> dict[str, Any]:
    # A scope names its service, not its provider, so it is offered the fields of them all.
    properties: dict[str, Any] = {}
    for schema in own:
        for name, field in schema["properties"].items():
            others = properties.get(name, {}).get("anyOf", [])
            properties[name] = {"anyOf": [*others, field]}
    return {**common, "properties": {**properties, **common["properties"]}}


def _tidied(schema: Any) -> Any:
    """Return the schema without titles that repeat names, and without null, which is refused."""
    if isinstance(schema, list):
        return [_tidied(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            tidy[key] = {name: _tidied(field) for name, field in value.items()}
        elif key in _DATA:
            if value is not None:
                tidy[key] = value
        elif key not in _UNHELPFUL:
            tidy[key] = _tidied(value)
    options = [one for one in tidy.get("anyOf", ()) if one != _NULL]
    if len(options) == 1:
        del tidy["anyOf"]
        return {**options[0], **tidy}
    return {**tidy, "anyOf": options} if options else tidy


def _with_definitions(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    needed: dict[str, Any] = {}
    pending = list(_references(schema))
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = definitions[name]
            pending.extend(_references(definitions[name]))
    return {**schema, "$defs": dict(sorted(needed.items()))}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(_PREFIX)
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def rendered(plugins: Mapping[str, Plugin]) -> str:
    """Return the schema as it is kept in `policies/schema.json`."""
    return json.dumps(policy_schema(plugins), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rendered(InstalledPlugins()))
