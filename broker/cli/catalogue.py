"""The catalogue: services that agents use, ready to be added.

Each file of `policies/catalogue` holds two YAML documents: what `broker add` must know and ask,
and the policy to write, in which `<name>`, `<secret.FIELD>` and `<PARAMETER>` are filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from broker.errors import ConfigurationError, did_you_mean
from broker.resources import data_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACEHOLDER: Final = re.compile(r"<([a-z_.]+)>")


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
    import yaml  # noqa: PLC0415 - listing names does not need it

    known = names()
    if name not in known:
        raise ConfigurationError(
            f"{name!r} is not in the catalogue{did_you_mean(name, known)} "
            f"It has: {', '.join(known)}"
        )
    content = (data_path("catalogue") / f"{name}.yaml").read_text(encoding="utf-8")
    about, _, template = content.partition("\n---\n")
    return _entry(name, yaml.safe_load(about), template)


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
