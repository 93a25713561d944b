"""A broker that mints tokens of a GitHub App, at a GitHub that is played."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.fakes.github import FakeGithub, Installation, serving_github
from tests.integration.running_broker import BrokerHome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.github import AppKey, GithubContract

POLICY: Final = """
services:
  github:
    provider: github_app
    app_id: 12345
    private_key: "embedded:app-key"
    installation: acme
    base_url: {url}
    insecure_http: true
    allow_private: true
scopes:
  repo.write:
    service: github
    delivery: [credential]
    repositories: [shop]
    permissions: {{contents: write}}
  repo.list:
    service: github
    allow: ["GET /installation/repositories"]
    repositories: [shop]
    permissions: {{metadata: read}}
  images.read:
    service: github
    delivery: [credential]
    registries: ["{registry}"]
    repositories: [shop]
    permissions: {{packages: read}}
agents:
  my-agent:
    trust: [{{source: local, claims: {{sub: my-agent}}}}]
    scopes: [repo.write, repo.list, images.read]
"""


@contextmanager
def github_home(
    directory: Path, contract: GithubContract, key: AppKey, registry: str = "registry.example"
) -> Iterator[tuple[BrokerHome, FakeGithub]]:
    """Make a home for a broker whose App is installed on `acme`, and serve that GitHub."""
    granted = {"contents": "write", "packages": "read", "metadata": "read"}
    acme = Installation(7, "acme", "Organization", granted, {"shop": 1, "bank": 2})
    github = FakeGithub(contract, key, time.time, installations=[acme])
    with serving_github(github):
        home = BrokerHome.create(directory / "broker" / "home")
        home.run("secret", "put", "app-key", stdin=key.pem.decode())
        home.policy(POLICY.format(url=github.url, registry=registry))
        yield home, github
