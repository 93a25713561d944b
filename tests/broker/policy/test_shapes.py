from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from typing import Annotated

from pydantic import BaseModel

from broker.policy.shapes import Shape
from providers.base import Templated


class Inner(BaseModel):
    name: Annotated[str, Templated("a-z")]
    plain: str


class Outer(BaseModel):
    text: Annotated[str, Templated()]
    maybe: Annotated[str, Templated("0-9")] | None = None
    items: tuple[Annotated[str, Templated("x")], ...]
    table: Mapping[str, Annotated[str, Templated("y")]]
    inner: list[Inner | None]
    plain: str


def alphabet(*steps: str | int) -> str | None:
    shape = Shape.of(Outer)
    for step in steps:
        shape = shape.inner(step)
    return shape.alphabet


def test_finds_the_mark_of_a_field() -> None:
    assert alphabet("text") == "A-Za-z0-9._-"
    assert alphabet("maybe") == "0-9"
    assert alphabet("plain") is None


def test_finds_the_mark_of_what_is_in_lists_mappings_and_models() -> None:
    assert alphabet("items", 3) == "x"
    assert alphabet("table", "any") == "y"
    assert alphabet("inner", 0, "name") == "a-z"
    assert alphabet("inner", 0, "plain") is None


def test_a_mark_counts_for_its_own_place_alone() -> None:
    assert alphabet() is None
    assert alphabet("items") is None
    assert alphabet("table") is None
    assert alphabet("inner") is None
    assert alphabet("text", 0) is None


def test_where_the_model_has_nothing_there_is_nothing() -> None:
    assert alphabet("unknown") is None
    assert alphabet("unknown", "deeper", 0) is None
    assert alphabet("items", "not an index") is None
    assert alphabet("table", 0) is None
