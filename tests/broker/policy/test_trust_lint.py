from __future__ import annotations

import pytest

from tests.fakes.policies import SMALL, changed, warnings

CLAIMS = 'claims: {repository_id: "123456", ref: refs/heads/main}'


def told(claims: str, issuer: str | None = None) -> list[str]:
    text = changed(CLAIMS, f"claims: {claims}")
    if issuer is not None:
        text = changed("https://token.actions.githubusercontent.com", issuer, text)
    return [line.partition(": agent 'release-bot': ")[2] for line in warnings(text)]


@pytest.mark.parametrize(
    ("claims", "issuer", "instead"),
    [
        ("{repository: acme/shop, ref: refs/heads/main}", None, "repository_id"),
        ("{repository_owner: acme, ref: refs/heads/main}", None, "repository_owner_id"),
        ('{repository_id: "1", ref: refs/heads/main, actor: ann}', None, "actor_id"),
        ('{sub: "repo:acme/shop:ref:refs/heads/main"}', None, "repository_id"),
        ('{sub: {glob: "repo:acme/*:ref:refs/heads/main"}}', None, "repository_id"),
        ("{project_path: acme/shop}", "https://gitlab.com", "project_id"),
        ('{sub: "project_path:acme/shop:ref_type:branch:ref:main"}', "https://gitlab.com",
         "project_id"),
        ("{terraform_workspace_name: prod}", "https://app.terraform.io", "terraform_workspace_id"),
        ('{sub: "organization:acme:project:x:workspace:prod:run_phase:apply"}',
         "https://app.terraform.io", "terraform_workspace_id"),
        ('{sub: "organization:acme:pipeline:deploy:ref:refs/heads/main"}',
         "https://agent.buildkite.com", "pipeline_id"),
        ('{sub: "system:serviceaccount:prod:bot"}', "https://k8s.example.com",
         "kubernetes.io.serviceaccount.uid"),
        ("{kubernetes.io.serviceaccount.name: bot}", "https://k8s.example.com",
         "kubernetes.io.serviceaccount.uid"),
        ("{email: ann@example.com}", "https://accounts.example.com", "sub"),
    ],
)  # fmt: skip
def test_a_name_that_can_change_hands_is_told_with_what_to_trust(
    claims: str, issuer: str | None, instead: str
) -> None:
    (found,) = told(claims, issuer)
    assert "can be given up and taken by someone else" in found
    assert instead in found


@pytest.mark.parametrize(
    ("claims", "issuer"),
    [
        ('{repository: acme/shop, repository_id: "1", ref: refs/heads/main}', None),
        ('{repository: acme/shop, repository_owner_id: "1", ref: refs/heads/main}', None),
        ('{sub: "repo:acme/shop:ref:refs/heads/main", repository_id: "1"}', None),
        ('{sub: "repo:acme@12/shop@34:ref:refs/heads/main"}', None),
        ('{sub: "107439"}', "https://accounts.example.com"),
        ("{email: ann@example.com, sub: abc}", "https://accounts.example.com"),
    ],
)
def test_names_beside_what_stays_are_fine(claims: str, issuer: str | None) -> None:
    assert told(claims, issuer) == []


def test_the_place_is_the_claims() -> None:
    text = changed(CLAIMS, "claims: {ref: refs/heads/main, repository: acme/shop}")
    assert warnings(text)[0].startswith("0.yaml:27:52: ")


@pytest.mark.parametrize(
    "issuer", [None, "https://github.example.com/_services/token"], ids=["github.com", "server"]
)
def test_a_repository_alone_is_any_branch_and_workflow(issuer: str | None) -> None:
    (found,) = told('{repository_id: "123456"}', issuer)
    assert found.startswith("any branch and workflow of the repository is this agent")


@pytest.mark.parametrize(
    "claims",
    ['{repository_id: "1", environment: prod}', '{repository_id: "1", ref: refs/heads/main}',
     '{repository_id: "1", job_workflow_ref: acme/flows/.github/workflows/x.yml@refs/heads/main}'],
)  # fmt: skip
def test_a_branch_environment_or_workflow_binds_it(claims: str) -> None:
    assert told(claims) == []


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ('{repository_id: "1", ref: {glob: "*"}}', "'ref' may have nearly any value"),
        ('{repository_id: "1", ref: {glob: "*/*"}}', "'ref' may have nearly any value"),
        ("{repository_id: 123456, ref: a}", "'repository_id' never matches; put it in quotes"),
        ('{repository_id: "1", ref: a, ref_protected: true}', "'ref_protected' never matches"),
        ('{repository_id: "1", ref: a, event_name: pull_request}', "pull requests run code"),
        ('{repository_id: "1", ref: {glob: "refs/pull/*"}}', "refs/pull/ is code"),
    ],
)
def test_what_is_too_wide_or_never_true_is_told(claims: str, problem: str) -> None:
    (found,) = told(claims)
    assert problem in found


def test_a_local_agent_needs_no_advice() -> None:
    assert warnings(SMALL) == []
