from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.source import MOST_CHARACTERS, Document, Node, Place, read

if TYPE_CHECKING:
    from broker.errors import Problem


def roots(text: str) -> tuple[Node, ...]:
    problems: list[Problem] = []
    found = read(Document("a.yaml", text), problems)
    assert problems == []
    return found


def refusal(text: str) -> str:
    problems: list[Problem] = []
    read(Document("a.yaml", text), problems)
    return "\n".join(str(problem) for problem in problems)


def test_reads_what_json_has() -> None:
    (root,) = roots('a: {b: [x, "1", 1, true, 0.5]}\nc: >\n  long\n  text\n')
    assert root.plain() == {"a": {"b": ["x", "1", 1, True, 0.5]}, "c": "long text\n"}


def test_a_switch_of_a_service_is_on_or_off() -> None:
    (root,) = roots("services: {a: {scrub: off}, b: {scrub: on}, c: {scrub: false}, d: {x: 'on'}}")
    assert root.plain()["services"] == {
        "a": {"scrub": "off"},
        "b": {"scrub": "on"},
        "c": {"scrub": False},
        "d": {"x": "on"},
    }


def test_knows_where_everything_stands() -> None:
    (root,) = roots("a:\n  - x\n  - {b: 1,\n     c: 2}\n")
    assert root.place_of([]) == Place("a.yaml", 1, 1)
    assert root.place_of(["a", 0]) == Place("a.yaml", 2, 5)
    assert root.place_of(["a", 1, "c"]) == Place("a.yaml", 4, 9)
    assert root.place_of(["a", 1, "c"], key=True) == Place("a.yaml", 4, 6)
    assert root.place_of(["a", 1, "nothing"]) == Place("a.yaml", 3, 5)
    assert root.place_of(["a", "tag", 1, "b"]) == Place("a.yaml", 3, 9)
    assert root.place_of_text("x") == Place("a.yaml", 2, 5)
    assert root.place_of_text("nowhere") == Place("a.yaml", 1, 1)


def test_leads_to_nodes() -> None:
    (root,) = roots("a: [x, {b: z}]\n")
    found = root.at(["a", 1, "b"])
    assert found is not None
    assert found.plain() == "z"
    assert root.at(["a", 7]) is None
    assert root.at(["a", "b", "c"]) is None
    assert root.only({"z"}).plain() == {}
    assert root.without({"z"}).plain() == root.plain()
    assert [str(place) for place in roots("a:\nb: [1, ~]")[0].places_of_none()] == [
        "a.yaml:1:3",
        "a.yaml:2:8",
    ]


def test_a_document_may_have_parts_and_may_be_empty() -> None:
    assert [root.plain() for root in roots("---\na: 1\n---\n---\nb: 2\n")] == [{"a": 1}, {"b": 2}]
    assert roots("") == ()
    assert roots("# nothing\n") == ()


def test_an_alias_is_what_it_names() -> None:
    (root,) = roots("a: &x {b: [1]}\nc: *x\n")
    assert root.plain() == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "a.yaml:2:1: not YAML"),
        ("a: 'x", "not YAML"),
        ("\ta: 1", "a.yaml:1:1: not YAML"),
        ("a: 1\n b: 2", "a.yaml:2:3: not YAML"),
        ("a: b: c", "a.yaml:1:5: not YAML"),
        ("a: %x", "not YAML"),
        ("allow: [* /v1]", "a.yaml:1:10: not YAML: did not find expected alphabetic"),
        ("allow: [* /v1]", "; a value that begins with '*' needs quotes"),
        ("allow: *all", "*all is no complete anchor before this place; a value that begins"),
        ("a: &x [*x]", "*x is no complete anchor"),
        ("a: &x 1\n---\nb: *x", "*x is no complete anchor"),
        ("a: 1\nb: 2\na: 3", "a.yaml:3:1: 'a' is given twice, first in line 1"),
        ('a: 1\n"a": 3', "a.yaml:2:1: 'a' is given twice"),
        ("a: {b: 1, b: 1}", "a.yaml:1:11: 'b' is given twice"),
        ("1: a", "a.yaml:1:1: a key is text"),
        ("? [a]\n: b", "a.yaml:1:3: a key is text"),
        ("true: a", "a.yaml:1:1: a key is text"),
        ("a: no", "a.yaml:1:4: YAML readers disagree on what 'no' is"),
        ("a: {b: {scrub: no}}", "a.yaml:1:16: YAML readers disagree on what 'no' is"),
        ("a: {b: {other: off}}", "a.yaml:1:16: YAML readers disagree on what 'off' is"),
        ("a: {b: {scrub: &x off}}", "YAML readers disagree on what 'off' is"),
        ("a: {b: {c: {scrub: off}}}", "YAML readers disagree on what 'off' is"),
        ("a: {scrub: off}", "YAML readers disagree on what 'off' is"),
        ("no: a", "a.yaml:1:1: YAML readers disagree"),
        ("<<: {a: 1}", "a.yaml:1:1: YAML readers disagree"),
        ("a: !!str x", "a.yaml:1:4: tags such as"),
        ("a: !!python/object/apply:os.system [id]", "a.yaml:1:4: tags such as"),
        ("a: !x y", "tags such as '!x'"),
        ("!!map {a: 1}", "tags such as"),
        ("!!str a: 1", "tags such as"),
        ("[" * 30 + "]" * 30, "nested more than 24 levels deep"),
        ("a: " + "{b: " * 30 + "1" + "}" * 30, "nested more than 24 levels deep"),
        ("a: \x07", "a.yaml:1:4: holds the unprintable character U+0007"),
        ("a: x\nb: '\u202e'", "a.yaml:2:5: holds the unprintable character U+202E"),
        ('a: "\\u202e"', "a.yaml:1:4: holds the unprintable character U+202E"),
        ('a: "\\0"', "holds the unprintable character U+0000"),
        ("a: \ud800", "holds the unprintable character U+D800"),
        ("a: \ufeffx", "U+FEFF"),
    ],
)  # fmt: skip
def test_refuses_what_is_ambiguous_or_not_yaml(text: str, problem: str) -> None:
    assert problem in refusal(text)


def test_tells_all_that_can_be_told_at_once() -> None:
    found = refusal("a: no\na: 1\n2: b\nc: 0777\n")
    assert [line.split(" ")[0] for line in found.splitlines()] == [
        "a.yaml:1:4:",
        "a.yaml:2:1:",
        "a.yaml:3:1:",
        "a.yaml:4:4:",
    ]


def test_a_billion_laughs_are_counted() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)
    ]
    assert "at most 100000 values, aliases expanded" in refusal("\n".join(lines))


def test_depth_counts_through_aliases() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 40))]
    assert "nested more than 24 levels deep" in refusal("\n".join(lines))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        "a" * (MOST_CHARACTERS + 1),
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "a: [" + "x, " * 200_000 + "]",
        "\n".join(f"k{n}: 1" for n in range(90_000)),
        "? " * 10_000,
        "&a " * 10_000,
        "'" * 100_000,
        "a: |\n" + " x\n" * 100_000,
        "#" * 500_000,
    ],
    ids=lambda text: text[:12],
)
def test_any_size_is_read_or_refused_in_bounded_time(text: str) -> None:
    problems: list[Problem] = []
    read(Document("a.yaml", text), problems)
    assert len(problems) <= 100_000


@given(st.text(max_size=60) | st.text("a:-[]{}&*!|>'\"%#,? \n\t0x~<", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    problems: list[Problem] = []
    found: list[Any] = [root.plain() for root in read(Document("a.yaml", text), problems)]
    assert all(one is not None for one in found)
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
