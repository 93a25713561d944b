"""The catalogue: services that agents use, ready to be added.

Each file of `policies/catalogue` holds two YAML documents: what `broker add` must know and ask,
and the policy to write, in which `<name>`, `<secret.FIELD>` and `<PARAMETER>` are filled in.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from broker.errors import ConfigurationError, did_you_mean
from broker.resources import data_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACEHOLDER: Final = re.compile(r"<([a-z_.]+)>")
_BASE_URL: Final = re.compile(r"^    base_url: .*\n", re.MULTILINE)

_ANY_API: Final = """\
services:
  <name>:
    provider: http_api
    base_url: <base_url>
    credential: {<credential>, secret: "<secret.key>"}

# What the API's paths mean is known to you alone: narrow these rules to what agents need.
scopes:
  <name>.read:
    description: Read anything
    service: <name>
    allow: ["GET /**", "HEAD /**"]
  <name>.write:
    description: Read and change anything, but not delete it
    service: <name>
    allow: ["GET /**", "HEAD /**", "POST /**", "PUT /**", "PATCH /**"]
"""
_CREDENTIALS: Final = {
    "bearer": "type: bearer",
    "header": "type: header, name: {}",
    "basic": "type: basic, username: {}",
    "query": "type: query, name: {}",
    "cookie": "type: cookie, name: {}",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What differs from one account to the next and is no secret; `pattern` is anchored."""

    ask: str
    pattern: str
    example: str
    default: str | None = None

    def accepts(self, value: str) -> bool:
        """Say whether `value` has the parameter's form."""
        return re.fullmatch(self.pattern, value, re.ASCII) is not None


@dataclass(frozen=True, slots=True)
class Example:
    """A request and what the scope `<name>.<scope>` makes of it."""

    scope: str
    request: str
    expect: Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One service of the catalogue; `grant` are the scopes an agent gets unless others are named.

    Scopes are named without the service (`read`), secrets by the field that a vault would use.
    """

    name: str
    title: str
    about: str
    documentation: str
    secrets: Mapping[str, str]
    grant: tuple[str, ...]
    examples: tuple[Example, ...]
    template: str
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def policy(
        self, service: str, parameters: Mapping[str, str], references: Mapping[str, str]
    ) -> str:
        """Return the policy document for `service`; `references` are secret references by field.

        Raises:
            ConfigurationError: when a parameter is missing or not of its form.
        """
        for name, parameter in self.parameters.items():
            if name not in parameters or not parameter.accepts(parameters[name]):
                raise ConfigurationError(
                    f"{self.title}: {name} is {parameters.get(name)!r}; "
                    f"expected something like {parameter.example} ({parameter.ask})"
                )
        secrets = {f"secret.{name}": reference for name, reference in references.items()}
        return fill(self.template, {"name": service, **secrets, **parameters})

    def reached(self, how: Mapping[str, str | bool]) -> Entry:
        """Return the entry with more said of how its service is reached (`allow_private`, ...)."""
        lines = "".join(f"    {name}: {_quoted(value)}\n" for name, value in how.items())
        return replace(self, template=_BASE_URL.sub(lambda match: match[0] + lines, self.template))


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with each `<name>` that `values` has replaced, and others left alone."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def names() -> tuple[str, ...]:
    """Return the names of all entries, sorted."""
    return tuple(sorted(path.stem for path in data_path("catalogue").glob("*.yaml")))


def load(name: str) -> Entry:
    """Return an entry by its name.

    Raises:
        ConfigurationError: when there is none, naming the nearest.
    """
    import yaml

    known = names()
    if name not in known:
        raise ConfigurationError(
            f"{name!r} is not in the catalogue{did_you_mean(name, known)} "
            f"It has: {', '.join(known)}"
        )
    content = (data_path("catalogue") / f"{name}.yaml").read_text(encoding="utf-8")
    about, _, template = content.partition("\n---\n")
    # The C parser where there is one: listing the catalogue reads all of it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return _entry(name, yaml.load(about, Loader=loader), template)  # noqa: S506 - both are safe


def any_api(name: str, base_url: str, credential: str) -> Entry:
    """Return an entry for an API that is not in the catalogue.

    `credential` is `bearer`, `header:X-Api-Key`, `basic:USER`, `query:NAME` or `cookie:NAME`.

    Raises:
        ConfigurationError: when `credential` is none of these.
    """
    kind, _, detail = credential.partition(":")
    if kind not in _CREDENTIALS or (kind == "bearer") == bool(detail):
        raise ConfigurationError(
            f"--credential is {credential!r}{did_you_mean(kind, _CREDENTIALS)}; expected bearer, "
            "header:X-Api-Key, basic:USER, query:NAME or cookie:NAME"
        )
    values = {
        "base_url": _quoted(base_url),
        "credential": _CREDENTIALS[kind].format(_quoted(detail)),
    }
    return Entry(
        name=name,
        title=name,
        about=base_url,
        documentation=base_url,
        secrets={"key": "The key that the API wants"},
        grant=("read",),
        examples=(Example("read", "GET /", "allow"),),
        template=fill(_ANY_API, values),
    )


def _quoted(value: object) -> str:
    """Return a value as YAML, which JSON is, whatever it holds; without what could be filled in."""
    return json.dumps(value).replace("<", "\\u003c")


def _entry(name: str, about: dict[str, Any], template: str) -> Entry:
    return Entry(
        name=name,
        title=about["title"],
        about=about["about"],
        documentation=about["documentation"],
        secrets=about["secrets"],
        grant=tuple(about["grant"]),
        examples=tuple(Example(**example) for example in about["examples"]),
        template=template,
        notes=tuple(about.get("notes", ())),
        parameters={key: Parameter(**value) for key, value in about.get("parameters", {}).items()},
    )
