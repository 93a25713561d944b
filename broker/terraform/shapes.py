"""How each section of the policy looks in Terraform: attributes with a type, and the rest.

What the loader calls a field is an attribute of the same name, where that can be; fields that
belong to a provider (or to a broker newer than this) are members of `settings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tf.schema import Attribute
from tf.types import Bool, List, Number, String, TfType

from broker.terraform.values import Dynamic, holds_unknown, without_nulls

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Final = "settings"
COMPUTED: Final = ("id", "etag", "version")

_STEP: Final = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of policy as an attribute; `attribute` is its name where Terraform takes that."""

    name: str
    type: TfType
    description: str
    required: bool = False
    attribute: str = ""

    @property
    def called(self) -> str:
        """The attribute's name."""
        return self.attribute or self.name


@dataclass(frozen=True, slots=True)
class Shape:
    """One section of the policy: what Terraform calls its entries, and their fields."""

    section: str
    kind: str
    description: str
    fields: tuple[Field, ...]

    def attributes(self) -> list[Attribute]:
        """Return the attributes of a resource."""
        name = f"What it is called; another name is another {self.kind.replace('_', ' ')}."
        return [
            Attribute("name", String(), name, required=True, requires_replace=True),
            *(
                Attribute(
                    field.called,
                    field.type,
                    field.description,
                    required=field.required,
                    optional=not field.required,
                )
                for field in self.fields
            ),
            Attribute(SETTINGS, Dynamic(), "Its other fields, as policy has them.", optional=True),
            Attribute("id", String(), "The name.", computed=True),
            Attribute("etag", String(), "What tells its state from every other.", computed=True),
            Attribute("version", Number(), "The version that last set it.", computed=True),
        ]

    def body(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what policy says of a resource."""
        given = {field.name: state.get(field.called) for field in self.fields}
        settings = state.get(SETTINGS)
        said = {**given, **(settings if isinstance(settings, dict) else {})}
        return {name: without_nulls(value) for name, value in said.items() if value is not None}

    def attributes_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of an entry, as the API tells of it."""
        rest = dict(entry["body"])
        typed = {field.called: _fitting(field, rest.pop(field.name, None)) for field in self.fields}
        return {
            "name": entry["name"],
            **typed,
            SETTINGS: rest or None,
            "id": entry["name"],
            "etag": entry["etag"],
            "version": entry["version"],
        }

    def is_known(self, state: Mapping[str, Any]) -> bool:
        """Say whether all that policy would say of a resource is known."""
        names = (*(field.called for field in self.fields), SETTINGS)
        return not any(holds_unknown(state.get(name)) for name in names)

    def misplaced(self, settings: Any) -> list[str]:
        """Return the members of `settings` for which there are attributes."""
        if not isinstance(settings, dict):
            return []
        return [field.name for field in self.fields if field.name in settings]

    def path(self, field_path: str) -> list[Any]:
        """Return the attribute path of what the API calls a field (`trust[0].source`)."""
        steps: list[Any] = [
            (int(step[1:-1]),) if step.startswith("[") else step
            for step in _STEP.findall(field_path)
        ]
        if not steps:
            return []
        for field in self.fields:
            if field.name == steps[0]:
                return [field.called, *steps[1:]]
        return [SETTINGS, *steps]


def _fitting(field: Field, value: Any) -> Any:
    # A duration may be a whole number of seconds in policy; here it is text.
    return str(value) if isinstance(field.type, String) and isinstance(value, int) else value


_DESCRIPTION: Final = Field("description", String(), "For people.")
_LIMITS: Final = Field("limits", Dynamic(), "How much may be used: `rate`, `total`, ...")
_MAX_TTL: Final = Field("max_ttl", String(), "The longest life of a task token, such as 15m.")

SHAPES: Final = (
    Shape(
        "identity_sources",
        "identity_source",
        "How a workload identity is verified.",
        (
            Field("type", String(), "oidc, local, ...", required=True),
            Field("issuer", String(), "The exact `iss` of its tokens."),
            Field("audiences", List(String()), "Whom its tokens must be for."),
            Field("algorithms", List(String()), "With what its tokens may be signed."),
            Field("replay", String(), "single_use or until_exp."),
            Field("max_token_age", String(), "How old a token may be, such as 15m."),
            _DESCRIPTION,
        ),
    ),
    Shape(
        "services",
        "service",
        "One upstream: where it is, and which secret it uses.",
        (
            Field(
                "provider",
                String(),
                "Which kind of service it is: http_api, github_app, aws_sts, ...",
                required=True,
                attribute="provider_kind",  # `provider` is Terraform's own word
            ),
            _DESCRIPTION,
        ),
    ),
    Shape(
        "scopes",
        "scope",
        "What can be asked for.",
        (
            Field("service", String(), "Of which service.", required=True),
            Field("allow", List(String()), "Rules such as `GET /v1/**`."),
            Field("deny", List(String()), "Rules that are looked at first."),
            Field("query", Dynamic(), "What query parameters may be."),
            Field("body", Dynamic(), "What bodies of requests may hold."),
            Field("delivery", List(String()), "proxy, credential, or both."),
            Field("registries", List(String()), "For which container registries it is."),
            _MAX_TTL,
            Field("reason", String(), "required or optional."),
            Field("risk", String(), "medium or high."),
            Field("websocket", Bool(), "Whether websockets are let through."),
            Field("on_behalf", Dynamic(), "Whom else, by which header field, requests may name."),
            _LIMITS,
            _DESCRIPTION,
        ),
    ),
    Shape(
        "agents",
        "agent",
        "Who may ask for what.",
        (
            Field(
                "trust",
                Dynamic(),
                "Which workload identities it is: a list of objects with `source` and `claims`.",
                required=True,
            ),
            Field("scopes", List(String()), "What it may ask for.", required=True),
            _MAX_TTL,
            _LIMITS,
            _DESCRIPTION,
        ),
    ),
)
