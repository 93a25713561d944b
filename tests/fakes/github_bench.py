"""A GitHub App's provider and the GitHub that it talks to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from providers.base import CredentialRequest, Dependencies, Secret
from providers.github_app.config import GithubAppScope, GithubAppService
from providers.github_app.provider import GithubApp
from tests.fakes.github import FakeGithub, Installation, serving_github

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.github import AppKey, GithubContract

PEM = "env:APP_KEY"


class Clock:
    """A wall clock that is right unless a test moves it on."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Values:
    """The secrets there are."""

    values: dict[str, bytes] = field(repr=False)

    async def read(self, reference: str) -> Secret:
        return Secret(self.values[reference])


@dataclass
class GithubBench:
    """A provider for an App that is installed on the organisation acme, and how to ask it."""

    github: FakeGithub
    key: AppKey
    clock: Clock

    def service(self, **fields: Any) -> GithubAppService:
        """Return the App's service."""
        given = {"app_id": 12345, "private_key": PEM, "installation": "acme"}
        place = {"base_url": self.github.url, "insecure_http": True}
        return GithubAppService.model_validate(given | place | fields)

    def provider(self, pem: bytes | None = None, **fields: Any) -> GithubApp:
        """Return a provider that knows nothing yet."""
        secrets = Values({PEM: self.key.pem if pem is None else pem})
        return GithubApp(self.service(**fields), Dependencies(secrets, http.client, self.clock))

    @property
    def installation(self) -> Installation:
        """Where the App is installed."""
        return self.github.installations[0]


def request(grant: str = "grant-1", lifetime: int = 600, **scope: Any) -> CredentialRequest:
    """Return what the lease desk and the gateway ask with."""
    if not {"repositories", "repository_ids"} & scope.keys():
        scope = {"repositories": ["shop"], **scope}
    scope = {"permissions": {"issues": "write"}, **scope}
    constraints = GithubAppScope.model_validate(scope)
    return CredentialRequest("github", "coder", grant, "issues", None, lifetime, constraints)


@pytest.fixture
def github_bench(github_contract: GithubContract, app_key: AppKey) -> Iterator[GithubBench]:
    """A GitHub of the test's own."""
    clock = Clock()
    granted = {"issues": "write", "contents": "read", "metadata": "read"}
    acme = Installation(7, "acme", "Organization", granted, {"shop": 1, "bank": 2, "till": 3})
    github = FakeGithub(github_contract, app_key, clock, installations=[acme])
    with serving_github(github):
        yield GithubBench(github, app_key, clock)
