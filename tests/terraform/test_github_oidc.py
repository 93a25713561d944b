"""terraform/modules/github-oidc: what it puts out is a policy, and it trusts that job alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.model import Agent, Deny, Identity
from broker.policy.loader import Document, load_policy

if TYPE_CHECKING:
    from broker.policy.engine import Policy
    from tests.components.terraform import TerraformTree

REST = """
services:
  github:
    provider: http_api
    base_url: https://api.github.com
    credential: {type: bearer, secret: "env:TOKEN"}
scopes:
  issues.read: {service: github, allow: ["GET /repos/*/*/issues"]}
"""
CLAIMS = {
    "repository": "acme/app",
    "repository_id": "123456",
    "repository_owner_id": "7890",
    "ref": "refs/heads/main",
    "job_workflow_ref": "acme/app/.github/workflows/release.yml@refs/heads/main",
}


@pytest.fixture(scope="module")
def policy(terraform: TerraformTree) -> Policy:
    example = terraform.at("examples/github-oidc")
    example.init()
    example.run("apply", "-auto-approve")
    text = example.run("output", "-raw", "policy_yaml")
    return load_policy([Document("github.yaml", text), Document("rest.yaml", REST)])


def agent_of(policy: Policy, **claims: str) -> Agent | Deny:
    issuer = "https://token.actions.githubusercontent.com"
    every = CLAIMS | claims
    identity = Identity("github-actions", issuer, "a job", every, "t-1", 2e9, "single_use")
    return policy.agent_for(identity, None)


def test_the_job_is_the_agent(policy: Policy) -> None:
    assert agent_of(policy) == Agent(
        "release-bot",
        ("issues.read",),
        900,
        "The release workflow of the main branch, and nothing else",
    )


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("repository_id", "123457"),
        ("repository_owner_id", "7891"),
        ("ref", "refs/heads/main2"),
        ("ref", "refs/pull/1/merge"),
        ("job_workflow_ref", "acme/app/.github/workflows/other.yml@refs/heads/main"),
        ("job_workflow_ref", "acme/app/.github/workflows/release.yml@refs/pull/1/merge"),
    ],
)
def test_another_job_is_nobody(policy: Policy, claim: str, value: str) -> None:
    assert isinstance(agent_of(policy, **{claim: value}), Deny)


def test_a_repository_that_was_renamed_is_the_same(policy: Policy) -> None:
    assert isinstance(agent_of(policy, repository="acme/renamed"), Agent)
