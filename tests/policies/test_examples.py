"""Each example policy loads without a warning, and its tests pass."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from broker.policy.fixtures import run_fixtures
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.reload import TEST_SUFFIXES, read_policies
from broker.resources import data_path

EXAMPLES = sorted(path for path in data_path("examples").iterdir() if path.is_dir())

DOCUMENTED = re.findall(
    r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "policy.md").read_text(), re.DOTALL
)


def test_there_are_some() -> None:
    assert {path.name for path in EXAMPLES} >= {"github-actions", "kubernetes", "laptop", "minted"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_its_tests_pass_and_nothing_is_to_be_reconsidered(example: Path) -> None:
    policy = load_policy(read_policies(example))
    assert policy.warnings == ()
    results = run_fixtures(policy, read_policies(example, TEST_SUFFIXES))
    assert results
    assert [(one.name, one.failures) for one in results if one.failures] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_its_tests_exercise_every_scope_and_expect_denials_too(example: Path) -> None:
    policy = load_policy(read_policies(example))
    text = "\n".join(one.text for one in read_policies(example, TEST_SUFFIXES))
    assert not [scope for scope in policy.scopes if scope not in text]
    assert "decision: allow" in text
    assert "decision: deny" in text


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_tells_editors_where_the_schema_is(example: Path) -> None:
    schema = json.loads(data_path("schema.json").read_text())
    assert schema["type"] == "object"
    for document in read_policies(example):
        assert document.text.startswith("# yaml-language-server: $schema=../../schema.json\n")


def test_the_documented_policy_loads_and_its_documented_test_passes() -> None:
    (example,) = [text for text in DOCUMENTED if text.startswith("identity_sources:")]
    (tests,) = [text for text in DOCUMENTED if text.startswith("tests:")]
    policy = load_policy([Document("policy.md", example)])
    assert policy.warnings == ()
    (result,) = run_fixtures(policy, [Document("policy.md", tests)])
    assert result.failures == ()


def test_the_documented_query_is_one() -> None:
    (example,) = [text for text in DOCUMENTED if text.startswith("identity_sources:")]
    (query,) = [text for text in DOCUMENTED if text.startswith("query:")]
    indented = "".join(f"    {line}\n" for line in query.splitlines())
    with_query = example.replace("    max_ttl: 15m\n", indented)
    assert load_policy([Document("policy.md", with_query)]).rules["stripe.refund"].query
