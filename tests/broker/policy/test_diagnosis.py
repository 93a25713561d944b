from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from broker.policy.diagnosis import unknown, validated
from broker.policy.source import Document, read

if TYPE_CHECKING:
    from broker.errors import Problem


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, strict=True)] = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["dog"]
    tricks: tuple[str, ...] = ()


class Home(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: str
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    rooms: dict[str, Cat] = {}
    mood: Literal["calm", "loud"] = "calm"
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"


def told(text: str, also: tuple[str, ...] = ()) -> list[str]:
    problems: list[Problem] = []
    (node,) = read(Document("a.yaml", text), problems)
    assert problems == []
    assert (validated(Home, node, "home", problems, also=also) is None) is bool(problems)
    return [str(problem) for problem in problems]


def test_says_nothing_of_what_is_right() -> None:
    assert told("address: here\npet: {kind: cat}") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pet: {kind: cat}", "a.yaml:1:1: home: field 'address' is missing"),
        ("[1]", "a.yaml:1:1: home: expected a mapping"),
        ("address: 7", "a.yaml:1:10: home, address: expected text; put it in quotes"),
        ("address: [7]", "a.yaml:1:10: home, address: expected text"),
        ("address: a\nadress: b", ("a.yaml:2:1: home: unknown field 'adress'; did you mean "
         "'address'?")),
        ("address: a\nzzz: b", ("a.yaml:2:1: home: unknown field 'zzz'; there are address, code, "
         "mood, pet, rooms")),
        ("address: a\npet: {}", "a.yaml:2:6: home, pet: field 'kind' is missing"),
        ("address: a\npet: {kind: cta}", ("a.yaml:2:13: home, pet: 'kind' must be one of 'cat', "
         "'dog'; did you mean 'cat'?")),
        ("address: a\npet: {kind: cat, live: 3}", ("a.yaml:2:18: home, pet: unknown field 'live'; "
         "did you mean 'lives'?")),
        ("address: a\npet: {kind: cat, lives: x}", ("a.yaml:2:25: home, pet.lives: expected a "
         "whole number")),
        ("address: a\npet: {kind: cat, lives: 0}", ("a.yaml:2:25: home, pet.lives: input should "
         "be greater than or equal to 1")),
        ("address: a\npet: {kind: dog, tricks: [sit, 7]}", ("a.yaml:2:32: home, pet.tricks[1]: "
         "expected text; put it in quotes")),
        ("address: a\nrooms: {kitchen: {kind: dog}}", ("a.yaml:2:25: home, rooms.kitchen.kind: "
         "expected 'cat'")),
        ("address: a\nrooms: {a: {kind: cat, kid: 1}}", ("a.yaml:2:24: home, rooms.a: unknown "
         "field 'kid'; did you mean 'kind'?")),
        ("address: a\nrooms: []", "a.yaml:2:8: home, rooms: expected a mapping"),
        ("address: a\nmood: calmer", ("a.yaml:2:7: home, mood: expected 'calm' or 'loud'; did you "
         "mean 'calm'?")),
    ],
)  # fmt: skip
def test_tells_each_mistake_with_its_place(text: str, expected: str) -> None:
    assert told(text) == [expected]


def test_fields_split_off_before_are_offered_too() -> None:
    assert told("address: a\nowenr: b", also=("owner",)) == [
        "a.yaml:2:1: home: unknown field 'owenr'; did you mean 'owner'?"
    ]


def test_tells_all_at_once() -> None:
    assert len(told("adress: a\nmood: x\ncode: 7\nrooms: {a: {}}")) == 5


def test_repeats_no_value() -> None:
    text = "address: [s3cret]\nmood: s3cret\ncode: S3CRET\npet: {kind: s3cret}\nrooms: s3cret"
    assert "s3cret" not in "\n".join(told(text)).lower()


def test_content_may_be_given_apart_from_its_place() -> None:
    problems: list[Problem] = []
    (node,) = read(Document("a.yaml", "address: x"), problems)
    found: Any = validated(Home, node, "home", problems, content={"address": "there"})
    assert found.address == "there"


def test_an_unknown_name_comes_with_the_nearest_or_with_all() -> None:
    assert unknown("scope", "stripe.raed", ["stripe.read"]) == (
        "unknown scope 'stripe.raed'; did you mean 'stripe.read'?"
    )
    assert unknown("scope", "xyz", ["b", "a"]) == "unknown scope 'xyz'; there are a, b"
    assert unknown("scope", "xyz", []) == "unknown scope 'xyz'; there are none"
    assert len(unknown("scope", "x" * 10_000, [f"n{n}" for n in range(1000)])) < 300
