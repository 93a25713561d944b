from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from broker import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


def _drawn() -> Iterator[tuple[str, str]]:
    """Yield (class, its base) as the module's docstring draws them."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if drawn := re.match(r" {4}((?:\|   )*(?:\|--|`--)? ?)([A-Z]\w+)", line):
            depth = len(drawn[1]) // 4
            above[depth:] = [drawn[2]]
            yield drawn[2], above[depth - 1] if depth else "Exception"


def _defined() -> Iterator[tuple[str, str]]:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert value.__base__ is not None
            yield name, value.__base__.__name__


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert sorted(_drawn()) == sorted(_defined())


def test_policy_errors_tell_every_problem_with_its_place() -> None:
    problems = (
        errors.Problem("a.yaml", 3, 5, "no such scope"),
        errors.Problem("b.yaml", 1, 1, "not YAML"),
    )
    error = errors.PolicyError(problems)
    assert str(error) == "a.yaml:3:5: no such scope\nb.yaml:1:1: not YAML"
    assert error.problems == problems


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("stripe.reed", "; did you mean 'stripe.read'?"),
        ("stripe.read", "; did you mean 'stripe.read'?"),
        ("github", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_word_is_named_if_there_is_one(word: str, advice: str) -> None:
    assert errors.did_you_mean(word, iter(["stripe.read", "openai.chat"])) == advice


@pytest.mark.parametrize(
    ("retryable", "untouched", "expected"),
    [(False, None, True), (True, None, False), (True, True, True), (False, False, False)],
)
def test_a_failed_mint_that_may_pass_may_have_left_something(
    *, retryable: bool, untouched: bool | None, expected: bool
) -> None:
    error = errors.CredentialUnavailable("down", retryable=retryable, untouched=untouched)
    assert error.untouched is expected
