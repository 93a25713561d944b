"""Fill `{agent}`, `{task}`, `{grant.jti}` and `{claims.NAME}` into a scope's constraints.

Only texts that the provider marks with `providers.base.Templated` take templates, and the
mark says which characters may come in. A value with any other is a denial: nothing is
escaped, cut or replaced, so no value can become syntax. `{{` and `}}` stand for braces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from broker.errors import did_you_mean
from broker.model import Deny
from broker.policy.conditions import lookup
from broker.policy.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from broker.errors import Problem
    from broker.policy.source import Node

_CLAIMS: Final = "claims."
_KNOWN: Final = ("agent", "task", "grant.jti", "claims.NAME")
_NAME: Final = re.compile(r"agent|task|grant\.jti|claims\.[^{}]+")
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class Template:
    """One text with templates: literals and names in turn, and which characters fill them."""

    literals: tuple[str, ...]
    names: tuple[str, ...]
    alphabet: str

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with `values`, by template name, in place.

        Raises:
            ValueError: when a value is absent or may not stand there; it is not repeated.
        """
        text = self.literals[0]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            value = values.get(name)
            if value is None:
                raise ValueError(f"it needs {{{name}}}, and there is none")
            if not self._fits(value):
                raise ValueError(
                    f"{{{name}}} is empty, longer than {_LONGEST}, has '..' "
                    f"or a character outside {self.alphabet}"
                )
            text += value + literal
        return text

    def sample(self) -> str:
        """Return the text with something harmless in place, to be validated at load."""
        letter = next((one for one in "a0A" if self._fits(one)), "-")
        return letter.join(self.literals)

    def _fits(self, value: str) -> bool:
        characters = re.fullmatch(f"[{self.alphabet}]+", value, re.ASCII)
        return characters is not None and len(value) <= _LONGEST and ".." not in value


class ConstraintTemplate:
    """A scope's constraints that are complete only for a grant.

    `content` is the scope's provider fields with `Template`s among the texts.
    """

    def __init__(self, model: type[BaseModel], content: Any) -> None:
        self._model: Final = model
        self._content: Final = content
        self.names: Final = frozenset(name for one in _templates(content) for name in one.names)
        """The names of all templates, such as `claims.repository`."""

    def sample(self) -> Any:
        """Return the constraints as plain data with something harmless in place."""
        return _map(self._content, Template.sample)

    def fill(self, values: Mapping[str, str]) -> BaseModel | Deny:
        """Return the provider's model with `values` in place, or why they do not fit."""
        try:
            return self._model.model_validate(_map(self._content, lambda one: one.fill(values)))
        except ValidationError:
            return Deny("a template's value makes a constraint that the provider refuses")
        except ValueError as error:
            return Deny(str(error))


def template_values(
    names: frozenset[str],
    claims: Mapping[str, Any],
    *,
    agent: str,
    task: str | None,
    grant: str | None,
) -> dict[str, str]:
    """Return what the templates `names` stand for; what is absent or not text is left out."""
    values = {"agent": agent, "task": task, "grant.jti": grant}
    for name in names:
        if name.startswith(_CLAIMS):
            claim = lookup(claims, name.removeprefix(_CLAIMS))
            whole = isinstance(claim, int) and not isinstance(claim, bool)
            values[name] = str(claim) if whole or isinstance(claim, str) else None
    return {name: value for name in names if (value := values[name]) is not None}


def claims_named(names: frozenset[str]) -> frozenset[str]:
    """Return the claims that the templates `names` need."""
    return frozenset(name.removeprefix(_CLAIMS) for name in names if name.startswith(_CLAIMS))


def parse_templates(
    model: type[BaseModel], node: Node, what: str, problems: list[Problem]
) -> ConstraintTemplate:
    """Return a scope's provider fields with their templates, of which there may be none.

    A template where the provider takes none, or of an unknown name, is added to `problems`.
    """
    return ConstraintTemplate(model, _parsed(Shape.of(model), node, what, problems))


def _parsed(shape: Shape, node: Node, what: str, problems: list[Problem]) -> Any:
    if isinstance(node.value, dict):
        return {
            key: _parsed(shape.inner(key), inner, f"{what}, {key}", problems)
            for key, inner in node.value.items()
        }
    if isinstance(node.value, tuple):
        return [_parsed(shape.inner(0), inner, what, problems) for inner in node.value]
    if not isinstance(node.value, str):
        return node.value
    try:
        return _template(node.value, shape.alphabet)
    except ValueError as error:
        problems.append(node.place.problem(f"{what}: {error}"))
        return node.value


def _template(text: str, alphabet: str | None) -> Template | str:
    if alphabet is None:
        if any(_NAME.fullmatch(match[1] or "") for match in _TOKEN.finditer(text)):
            raise ValueError("this text takes no templates")
        return text
    literals, names, end = [""], [], 0
    for match in _TOKEN.finditer(text):
        literals[-1] += text[end : match.start()]
        end = match.end()
        if match[0] in {"{{", "}}"}:
            literals[-1] += match[0][0]
        elif match[1] is not None and _NAME.fullmatch(match[1]):
            names.append(match[1])
            literals.append("")
        else:
            known = ", ".join(f"{{{name}}}" for name in _KNOWN)
            hint = did_you_mean(match[1] or "", _KNOWN) or f"; there are {known}"
            raise ValueError(f"{match[0][:40]!r} is no template{hint}; '{{{{' stands for a brace")
    literals[-1] += text[end:]
    return Template(tuple(literals), tuple(names), alphabet) if names else literals[0]


def _templates(content: Any) -> Iterator[Template]:
    if isinstance(content, Template):
        yield content
    elif isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _templates(inner)


def _map(content: Any, change: Callable[[Template], str]) -> Any:
    if isinstance(content, Template):
        return change(content)
    if isinstance(content, dict):
        return {key: _map(inner, change) for key, inner in content.items()}
    if isinstance(content, list):
        return [_map(inner, change) for inner in content]
    return content
