"""Each example policy loads without a warning, and its tests pass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from broker.policy.fixtures import run_fixtures
from broker.policy.loader import load_policy
from broker.policy.source import Document
from broker.reload import TEST_SUFFIXES, read_policies
from broker.resources import data_path

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted(path for path in data_path("examples").iterdir() if path.is_dir())

PRODUCT = """\
identity_sources:
  github-actions:
    type: oidc
    issuer: https://token.actions.githubusercontent.com
    audiences: [https://broker.example.com]
    algorithms: [RS256]
    replay: single_use            # or until_exp
    max_token_age: 15m
services:
  stripe:
    provider: http_api
    base_url: https://api.stripe.com
    credential: {type: bearer, secret: "vault:kv/stripe#key"}
scopes:
  stripe.read:
    service: stripe
    allow: ["GET /v1/**"]
  stripe.refund:
    service: stripe
    allow: ["GET /v1/charges/*", "POST /v1/refunds"]
    deny: ["* /v1/refunds/*/cancel"]
    max_ttl: 15m
    reason: required
agents:
  release-bot:
    trust:
      - source: github-actions
        claims: {repository_id: "123456", ref: refs/heads/main}
    scopes: [stripe.read, stripe.refund]
    max_ttl: 1h
"""


def test_there_are_some() -> None:
    assert {path.name for path in EXAMPLES} >= {"github-actions", "kubernetes", "laptop"}


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


def test_the_language_as_the_documentation_shows_it_loads_without_a_warning() -> None:
    policy = load_policy([Document("product.yaml", PRODUCT)])
    assert policy.warnings == ()
