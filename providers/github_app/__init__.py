"""Tokens of a GitHub App's installation, cut to the repositories and permissions of a scope.

    services:
      github:
        provider: github_app
        app_id: 12345
        private_key: "vault:kv/github-app#pem"
        installation: acme
    scopes:
      issues.write:
        service: github
        delivery: [credential]
        repositories: ["{claims.repository}"]
        permissions: {issues: write, metadata: read}

Without a list of repositories GitHub means all of them, without permissions all that the App
has. So both are always sent, what comes back is held against them, and a token that can do
more is ended and never used. GitHub lets a token live for an hour; it is revoked when its
grant ends.

`config` says what policy may hold, `api` speaks to GitHub, `provider` mints.
"""

from __future__ import annotations

from typing import Final

from providers.base import Plugin, TokenSlot
from providers.github_app.config import GithubAppScope, GithubAppService, upstream
from providers.github_app.provider import TOKEN_LIFE, GithubApp

PLUGIN: Final = Plugin(
    kind="github_app",
    service_model=GithubAppService,
    scope_model=GithubAppScope,
    deliveries=frozenset({"proxy", "credential"}),
    http_rules=True,
    build=GithubApp,
    upstream=upstream,
    # git, and some clients of the API, know Basic alone.
    token_slots=lambda _: (
        TokenSlot("bearer", b"authorization", b"Bearer "),
        TokenSlot("header", b"authorization", b"token "),
        TokenSlot("basic", b"authorization"),
    ),
    secret_references=lambda config: (config.private_key,),
    least_lifetime=TOKEN_LIFE,
)
