"""Every call that the provider makes, and every answer it takes, passes GitHub's own contract.

Between the provider and the GitHub that is played stands prism, with the description that GitHub
publishes: it lets nothing through that is not in it, in either direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx
import pytest

from providers.base import ProviderError
from tests.components.prism import prism_before
from tests.fakes.github import Installation
from tests.fakes.github_bench import request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.gate import Gate
    from tests.fakes.github_bench import GithubBench

CALLED: Final = (
    "/app/installations/{installation_id}",
    "/app/installations/{installation_id}/access_tokens",
    "/installation/token",
    "/orgs/{org}/installation",
    "/repos/{owner}/{repo}/installation",
    "/users/{username}/installation",
)
"""All that the provider calls; prism answers 404 to anything else."""

ORDER: Final = "app/installations/7/access_tokens"


@pytest.fixture
def prism(component: Gate, github_bench: GithubBench, tmp_path: Path) -> Iterator[str]:
    """The URL of prism before the GitHub of the bench."""
    github = github_bench.github
    with prism_before(component, github.url, github.contract.cut(*CALLED), tmp_path) as url:
        yield url


async def test_all_calls_from_the_look_up_to_the_end(github_bench: GithubBench, prism: str) -> None:
    github = github_bench.github
    github.installations.append(
        Installation(8, "octocat", "User", {"issues": "write"}, {"shop": 9})
    )
    for place in ("acme", "acme/shop", 7, "octocat"):
        provider = github_bench.provider(base_url=prism, installation=place)
        for scope in (
            {"repositories": ["shop"]},
            {"repository_ids": [9 if place == "octocat" else 1]},
        ):
            minted = await provider.mint(request(**scope))
            token = minted.fields["token"].reveal().decode()
            assert token in github.live
            await provider.revoke(minted.handle)
            assert token not in github.live
    called = {f"{call.method} {call.path}" for call in github.calls}
    assert called == {
        "GET /orgs/acme/installation",
        "GET /repos/acme/shop/installation",
        "GET /app/installations/7",
        "GET /orgs/octocat/installation",
        "GET /users/octocat/installation",
        "POST /app/installations/7/access_tokens",
        "POST /app/installations/8/access_tokens",
        "DELETE /installation/token",
    }


BROKEN: Final[tuple[dict[str, object], ...]] = (
    {"repositories": ["shop"], "permissions": {"issues": "everything"}},
    {"repositories": "shop", "permissions": {"issues": "read"}},
    {"repository_ids": ["1"], "permissions": {"issues": "read"}},
)


async def test_prism_lets_nothing_through_that_github_does_not_know(
    github_bench: GithubBench, prism: str
) -> None:
    github = github_bench.github
    async with httpx.AsyncClient(trust_env=False) as client:
        for body in BROKEN:
            answer = await client.post(f"{prism}/{ORDER}", json=body)
            assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, body
        assert (await client.get(f"{prism}/app/everything")).is_client_error
    assert github.calls == []
    github.alter = lambda document: {**document, "expires_at": 7}
    with pytest.raises(ProviderError, match="GitHub answered 500"):
        await github_bench.provider(base_url=prism).mint(request())
    assert github.live
    github.problems.clear()  # which the played one has noticed, too
