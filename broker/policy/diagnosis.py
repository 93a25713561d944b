"""Validate nodes with pydantic models and tell each mistake with its place.

Messages never repeat a value, for it may be a secret in the wrong place; they name fields,
what was expected and the nearest valid word.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from broker.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from broker.errors import Problem
    from broker.policy.source import Node

_EXPECTED: Final = {
    "string_type": "expected text",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "string_too_short": "is empty",
}


def validated(  # noqa: PLR0913 - what is judged, and what its messages need
    model: Any,
    node: Node,
    what: str,
    problems: list[Problem],
    *,
    also: Iterable[str] = (),
    content: Any = None,
) -> Any | None:
    """Return the `model` (a pydantic model or annotated type) of `node`, or None.

    What is wrong is added to `problems`, each beginning with `what`; `also` are fields that
    may stand beside the model's own and were split off before. `content` is validated in
    place of what the node holds, where that is not quite it.
    """
    try:
        return _adapter(model).validate_python(node.plain() if content is None else content)
    except ValidationError as error:
        problems.extend(
            _problem(model, node, what, details, tuple(also))
            for details in error.errors(include_url=False)
            # Of a list whose items are wrong, pydantic also says that too few are right.
            if not (details["type"] == "too_short" and details["input"])
        )
        return None


@lru_cache(maxsize=256)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _problem(model: Any, node: Node, what: str, details: Any, also: Sequence[str]) -> Problem:
    kind: str = details["type"]
    steps, parent = _within(node, details["loc"])
    unknown = kind == "extra_forbidden"
    where = parent if kind == "missing" else steps
    if kind == "union_tag_invalid":
        where = [*steps, details["ctx"]["discriminator"].strip("'")]
    place = node.place_of(where, key=unknown)
    field = _dotted(parent if unknown or kind == "missing" else steps)
    message = _message(model, details, also)
    return place.problem(f"{what}{', ' + field if field else ''}: {message}")


def _within(node: Node, loc: Sequence[str | int]) -> tuple[list[str | int], list[str | int]]:
    """Return the steps of `loc` that are in the document, and the same without the last field."""
    steps: list[str | int] = []
    here: Node | None = node
    for step in loc:
        child = here.child(step) if here is not None else None
        if child is not None:
            steps.append(step)
            here = child
    parent = steps[:-1] if steps and steps[-1] == loc[-1] else steps
    return steps, parent


def _message(model: Any, details: Any, also: Sequence[str]) -> str:  # noqa: PLR0911 - a table
    kind, context = details["type"], details.get("ctx", {})
    last = details["loc"][-1] if details["loc"] else ""
    if kind == "extra_forbidden":
        known = sorted({*_fields_at(model, details["loc"][:-1]), *also})
        hint = did_you_mean(str(last), known) or f"; there are {', '.join(known)}"
        return f"unknown field {str(last)[:80]!r}{hint}"
    if kind == "missing":
        return f"field {last!r} is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"expected {context['expected']}{_nearest(details['input'], context['expected'])}"
    if kind == "union_tag_invalid":
        field = context["discriminator"].strip("'")
        near = _nearest(details["input"].get(field), context["expected_tags"])
        return f"'{field}' must be one of {context['expected_tags']}{near}"
    if kind == "union_tag_not_found":
        return f"field {context['discriminator']} is missing"
    if kind == "too_short":
        return "an empty list or mapping says nothing; leave it out or fill it"
    if kind in _EXPECTED:
        quote = kind == "string_type" and isinstance(details["input"], int | float)
        return _EXPECTED[kind] + ("; put it in quotes" if quote else "")
    message = str(details["msg"])
    return message[:1].lower() + message[1:]


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """Return that there is no `kind` of this name, with the nearest or all there are."""
    listed = ", ".join(sorted(known)[:20]) or "none"
    return f"unknown {kind} {name[:80]!r}{did_you_mean(name, known) or f'; there are {listed}'}"


def _nearest(given: object, expected: str) -> str:
    return did_you_mean(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else ""


def _dotted(steps: Sequence[str | int]) -> str:
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step[:80]}"
    return text.removeprefix(".")


def _fields_at(model: Any, loc: Sequence[str | int]) -> set[str]:
    models = _models_in(model)
    for step in loc:
        inner = {
            found
            for one in models
            if step in one.model_fields
            for found in _models_in(one.model_fields[str(step)].annotation)
        }
        # Where the step is no field, it is an index or the tag of a union's member.
        tagged = {one for one in models if step in _tags(one)}
        models = inner or tagged or models
    return {name for one in models for name in one.model_fields}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for part in get_args(annotation) for found in _models_in(part)}


def _tags(model: type[BaseModel]) -> set[Any]:
    return {value for field in model.model_fields.values() for value in get_args(field.annotation)}
