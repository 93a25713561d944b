from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.policy.merging import merge, version_of
from broker.policy.source import Document

if TYPE_CHECKING:
    from broker.errors import Problem


def merged(*texts: str) -> tuple[dict[str, list[str]], list[str]]:
    problems: list[Problem] = []
    documents = [Document(f"{number}.yaml", text) for number, text in enumerate(texts)]
    sections = merge(documents, problems)
    names = {section: list(entries) for section, entries in sections.items() if entries}
    return names, [str(problem) for problem in problems]


def test_puts_the_entries_of_all_documents_together() -> None:
    names, problems = merged(
        "services: {a: {}}\nscopes: {x: {}}", "services: {b: {}}", "---\nagents: {c: {}}\n---\n"
    )
    assert names == {"services": ["a", "b"], "scopes": ["x"], "agents": ["c"]}
    assert problems == []


def test_a_name_defined_twice_is_told_with_both_places() -> None:
    _, problems = merged("services:\n  a: {}\n  b: {}", "services:\n  b: {x: 1}\n  a: {}")
    assert problems == [
        "1.yaml:2:3: services.b is defined twice: here and at 0.yaml:3:3",
        "1.yaml:3:3: services.a is defined twice: here and at 0.yaml:2:3",
    ]


def test_the_parts_of_one_document_do_not_overwrite_each_other() -> None:
    _, problems = merged("agents: {a: {}}\n---\nagents: {a: {}}")
    assert problems == ["0.yaml:3:10: agents.a is defined twice: here and at 0.yaml:1:10"]


def test_the_same_name_in_two_sections_is_no_clash() -> None:
    assert merged("services: {a: {}}\nscopes: {a: {}}\nagents: {a: {}}")[1] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "0.yaml:1:1: expected a mapping with identity_sources, services, scopes, agents"),
        ("text", "0.yaml:1:1: expected a mapping"),
        ("agent: {}", "0.yaml:1:1: unknown section 'agent'; did you mean 'agents'?"),
        ("xyz: {}", "0.yaml:1:1: unknown section 'xyz'; there are identity_sources, services"),
        ("agents: []", "0.yaml:1:9: agents: expected a mapping of names"),
        ("agents: x", "0.yaml:1:9: agents: expected a mapping of names"),
        ("agents: {a: {b: }}", "0.yaml:1:17: agents.a: no value; leave the field out"),
        ("agents: {a: {b: [null]}}", "0.yaml:1:18: agents.a: no value"),
        ("agents: {a: }", "0.yaml:1:13: agents.a: no value"),
    ],
)
def test_refuses_what_is_no_section(text: str, problem: str) -> None:
    (found, *_) = merged(text)[1]
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "name",
    ["A", "a b", "a/b", "-a", "a-", ".a", "a..b", "a" * 65, "\u00e9", "a:b", "{agent}", "a\\n",
     "__proto__", ""],
)  # fmt: skip
def test_refuses_what_is_no_name(name: str) -> None:
    (problem,) = merged(f'agents: {{"{name}": {{}}}}')[1]
    assert "is not a name" in problem


@pytest.mark.parametrize("name", ["a", "7", "stripe.read", "a-b_c.d", "a" * 64])
def test_takes_names(name: str) -> None:
    assert merged(f'agents: {{"{name}": {{}}}}')[1] == []


def test_the_number_of_entries_is_bounded() -> None:
    text = "agents:\n" + "\n".join(f"  a{number}: {{}}" for number in range(10_002))
    names, problems = merged(text)
    assert len(names["agents"]) == 10_000
    assert problems == ["0.yaml:10002:3: agents has more than 10000 entries"]


def test_the_version_is_of_what_is_said() -> None:
    def version(*texts: str) -> str:
        documents = [Document(f"{number}.yaml", text) for number, text in enumerate(texts)]
        return version_of(merge(documents, []))

    one = version("agents: {a: {x: [1, 2]}, b: {}}")
    assert one == version("agents: {b: {}}", "# so\nagents:\n  a:\n    x:\n    - 1\n    - 2\n")
    assert one != version("agents: {a: {x: [2, 1]}, b: {}}")
    assert one != version('agents: {a: {x: ["1", 2]}, b: {}}')
    assert one != version("services: {a: {x: [1, 2]}, b: {}}")
