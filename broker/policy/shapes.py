"""Say what a pydantic model expects at each place, as far as templates care."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from providers.base import Templated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Shape:
    """The types that one place may have; `alphabet` is what templates may bring, if any."""

    types: tuple[Any, ...] = ()
    alphabet: str | None = None

    @classmethod
    def of(cls, annotation: Any, marks: Iterable[Any] = ()) -> Shape:
        """Return the shape of a type annotation with `marks` as its metadata."""
        found = (*_marks(annotation), *marks)
        alphabets = [mark.alphabet for mark in found if isinstance(mark, Templated)]
        return cls(tuple(_types(annotation)), alphabets[0] if alphabets else None)

    def inner(self, step: str | int) -> Shape:
        """Return the shape one step down: of a field, a value in a mapping or list item."""
        shapes = [shape for one in self.types if (shape := _inner(one, step)) is not None]
        alphabets = [shape.alphabet for shape in shapes if shape.alphabet is not None]
        return Shape(
            tuple(one for shape in shapes for one in shape.types),
            alphabets[0] if alphabets else None,
        )


def _inner(one: Any, step: str | int) -> Shape | None:
    if isinstance(one, type) and issubclass(one, BaseModel):
        field = one.model_fields.get(str(step))
        return None if field is None else Shape.of(field.annotation, field.metadata)
    origin, arguments = get_origin(one), get_args(one)
    if not isinstance(origin, type) or not arguments:
        return None
    if issubclass(origin, Mapping):
        return Shape.of(arguments[1]) if isinstance(step, str) else None
    return Shape.of(arguments[0]) if isinstance(step, int) else None


def _types(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for part in get_args(annotation):
            yield from _types(part)
    else:
        yield annotation


def _marks(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        yield from marks
        yield from _marks(inner)
    elif origin in {Union, UnionType}:
        for part in get_args(annotation):
            yield from _marks(part)
