"""Advise against trust that someone else could come to meet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.policy.document import OidcSourceConfig
from broker.policy.globs import Glob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.errors import Problem
    from broker.policy.conditions import Condition
    from broker.policy.engine import Policy
    from broker.policy.merging import Sections
    from broker.policy.source import Node

_RECREATABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "repository": ("repository_id", "repository_owner_id"),
    "repository_owner": ("repository_owner_id",),
    "actor": ("actor_id",),
    "project_path": ("project_id", "namespace_id"),
    "namespace_path": ("namespace_id",),
    "user_login": ("user_id",),
    "user_email": ("user_id",),
    "terraform_workspace_name": ("terraform_workspace_id",),
    "terraform_project_name": ("terraform_project_id",),
    "terraform_organization_name": ("terraform_organization_id",),
    "organization_slug": ("organization_id",),
    "pipeline_slug": ("pipeline_id",),
    "kubernetes.io.serviceaccount.name": ("kubernetes.io.serviceaccount.uid",),
    "email": ("sub",),
    "preferred_username": ("sub",),
}
"""Claims that hold a name which can be given up and taken by someone else, and the immutable
ones of which any would do instead."""

_NAMES_IN_SUBJECT: Final = (
    (re.compile(r"repo:[^@]+"), ("repository_id", "repository_owner_id")),
    (re.compile(r"project_path:.+"), ("project_id", "namespace_id")),
    (re.compile(r"organization:.+:workspace:.+"), ("terraform_workspace_id",)),
    (re.compile(r"organization:.+:pipeline:.+"), ("pipeline_id", "organization_id")),
    (re.compile(r"system:serviceaccount:.+"), ("kubernetes.io.serviceaccount.uid",)),
)
"""Forms of `sub` that are made of names (GitHub, GitLab, Terraform, Buildkite, Kubernetes)."""

_ALL_TEXT: Final = frozenset({"token.actions.githubusercontent.com", "gitlab.com"})
"""Issuers whose own claims are all text, numbers and booleans included."""

_GITHUB: Final = "token.actions.githubusercontent.com"
_BINDS_WORKFLOW: Final = frozenset(
    {"ref", "environment", "sub", "workflow_ref", "job_workflow_ref", "job_workflow_sha", "sha"}
)
_FORKS: Final = frozenset({"pull_request", "pull_request_target"})


def trust_advice(policy: Policy, sections: Sections) -> Iterator[Problem]:
    """Yield what to reconsider in the `trust` of each agent."""
    for name, entry in sections["agents"].items():
        for index, trust in enumerate(policy.trust[name]):
            source = policy.identity_sources[trust.source]
            node = entry.node.at(["trust", index])
            if isinstance(source, OidcSourceConfig) and node is not None:
                host = _host(source.issuer)
                yield from _claims_advice(f"agent {name!r}", trust.conditions, node, host)


def _host(issuer: str) -> str:
    if issuer.endswith("/_services/token"):  # GitHub Enterprise Server
        return _GITHUB
    return urlsplit(issuer).hostname or ""


def _claims_advice(
    what: str, claims: Mapping[str, Condition], node: Node, host: str
) -> Iterator[Problem]:
    for claim, condition in claims.items():
        place = node.place_of(["claims", claim])
        for message in _claim_advice(claim, condition, claims, host):
            yield place.problem(f"{what}: {message}")
    if host == _GITHUB and not claims.keys() & _BINDS_WORKFLOW:
        yield node.place.problem(
            f"{what}: any branch and workflow of the repository is this agent; "
            "add ref, environment or job_workflow_ref"
        )


def _claim_advice(
    claim: str, condition: Condition, claims: Mapping[str, Condition], host: str
) -> Iterator[str]:
    values = condition.alternatives
    immutable = _immutable_instead(claim, condition)
    if immutable and not claims.keys() & set(immutable):
        yield (
            f"claim {claim!r} holds a name that can be given up and taken by someone else; "
            f"trust {' or '.join(immutable)} as well"
        )
    if any(isinstance(one, Glob) and not one.pattern.strip("*/") for one in values):
        yield f"claim {claim!r} may have nearly any value; say which"
    if host in _ALL_TEXT and any(isinstance(one, bool | int) for one in values):
        yield f"{host} sends every claim as text, so {claim!r} never matches; put it in quotes"
    if claim == "event_name" and _FORKS & set(values):
        yield "pull requests run code that anyone may have proposed; trust pushes instead"
    if claim == "ref" and any(
        str(getattr(one, "pattern", one)).startswith("refs/pull/") for one in values
    ):
        yield "refs/pull/ is code that anyone may have proposed; trust a protected branch"


def _immutable_instead(claim: str, condition: Condition) -> tuple[str, ...]:
    if claim != "sub":
        return _RECREATABLE.get(claim, ())
    for one in condition.alternatives:
        text = one.pattern if isinstance(one, Glob) else str(one)
        for form, immutable in _NAMES_IN_SUBJECT:
            if form.fullmatch(text):
                return immutable
    return ()
