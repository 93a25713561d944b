from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.gateway.inject import Credential
from providers.base import CredentialRequest, Minted, ProviderError
from providers.github_app import PLUGIN
from providers.github_app.config import RANK, GithubAppScope
from tests.components.github import APP_ID, INSTALLATION
from tests.fakes.github import Reply, refused
from tests.fakes.github_bench import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from providers.github_app.provider import GithubApp
    from tests.fakes.github import Document
    from tests.fakes.github_bench import GithubBench


def text(minted: Minted) -> str:
    return minted.fields["token"].reveal().decode()


async def refusal(provider: GithubApp, **scope: Any) -> ProviderError:
    with pytest.raises(ProviderError) as error:
        await provider.mint(request(**scope))
    assert "SECRET" not in str(error.value)
    assert "ghs_" not in str(error.value)
    return error.value


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ({"repositories": ["shop"]}, {"repositories": ["shop"]}),
        ({"repositories": ["acme/shop", "ACME/bank"]}, {"repositories": ["shop", "bank"]}),
        ({"repositories": ["shop", "acme/shop"]}, {"repositories": ["shop"]}),
        ({"repository_ids": [2, 3]}, {"repository_ids": [2, 3]}),
    ],
)
async def test_both_lists_are_sent(
    github_bench: GithubBench, scope: dict[str, Any], asked: dict[str, Any]
) -> None:
    minted = await github_bench.provider().mint(request(**scope))
    assert github_bench.github.orders == [{**asked, "permissions": {"issues": "write"}}]
    assert text(minted) in github_bench.github.live
    assert 3500 < minted.expires_at - github_bench.clock() <= 3600
    assert not minted.renewable


@pytest.mark.parametrize("installation", ["acme", "ACME", "acme/shop", 7])
async def test_the_installation_is_looked_up_once(
    github_bench: GithubBench, installation: str | int
) -> None:
    provider = github_bench.provider(installation=installation)
    for _ in range(3):
        await provider.mint(request())
    assert [call.method for call in github_bench.github.calls] == ["GET", "POST", "POST", "POST"]
    github_bench.clock.ahead += 601
    await provider.mint(request())
    assert [call.method for call in github_bench.github.calls[4:]] == ["GET", "POST"]


async def test_a_user_may_have_installed_it(github_bench: GithubBench) -> None:
    github_bench.installation.kind = "User"
    await github_bench.provider().mint(request())
    paths = [call.path for call in github_bench.github.calls]
    assert paths[:2] == ["/orgs/acme/installation", "/users/acme/installation"]


async def test_r1_a_token_ends_when_it_is_revoked_and_stays_so(github_bench: GithubBench) -> None:
    provider = github_bench.provider()
    minted = await provider.mint(request())
    await github_bench.provider().revoke(minted.handle)
    assert github_bench.github.live == {}
    await provider.revoke(minted.handle)


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_an_end_that_was_none_is_told(github_bench: GithubBench, status: int) -> None:
    provider = github_bench.provider()
    minted = await provider.mint(request())
    github_bench.github.replies["DELETE"] = [refused(status)]
    with pytest.raises(ProviderError, match=f"answered {status}"):
        await provider.revoke(minted.handle)
    assert text(minted) in github_bench.github.live


async def test_c2_a_handle_is_not_shown(github_bench: GithubBench) -> None:
    minted = await github_bench.provider().mint(request())
    assert "ghs_" not in repr(minted)


WIDER: dict[str, Callable[[Document], Document]] = {
    "another permission": lambda one: {**one, "permissions": {"issues": "write", "pages": "read"}},
    "a higher level": lambda one: {**one, "permissions": {"issues": "admin"}},
    "an unknown level": lambda one: {**one, "permissions": {"issues": "all"}},
    "a level that is no word": lambda one: {**one, "permissions": {"issues": ["read"]}},
    "more metadata": lambda one: {**one, "permissions": {"issues": "read", "metadata": "write"}},
    "no permissions": lambda one: {**one, "permissions": {}},
    "permissions untold": lambda one: {k: v for k, v in one.items() if k != "permissions"},
    "all repositories": lambda one: {**one, "repository_selection": "all"},
    "repositories untold": lambda one: {k: v for k, v in one.items() if k != "repositories"},
    "no repositories": lambda one: {**one, "repositories": []},
    "another's": lambda one: {**one, "repositories": _renamed(one, "evil/shop")},
    "another": lambda one: {**one, "repositories": _renamed(one, "acme/bank")},
    "one more": lambda one: {
        **one,
        "repositories": [*one["repositories"], *_renamed(one, "acme/bank")],
    },
    "endless": lambda one: {**one, "expires_at": "never"},
    "of no zone": lambda one: {**one, "expires_at": "2030-01-01T00:00:00"},
}


def _renamed(document: Document, name: str) -> list[Document]:
    return [{**document["repositories"][0], "id": 99, "full_name": name}]


@pytest.mark.parametrize("scope", [{"repositories": ["shop"]}, {"repository_ids": [1]}])
@pytest.mark.parametrize("how", WIDER)
async def test_a_token_that_is_wider_is_ended_unused(
    github_bench: GithubBench, how: str, scope: dict[str, Any]
) -> None:
    github_bench.github.alter = WIDER[how]
    error = await refusal(github_bench.provider(), **scope)
    github_bench.github.problems.clear()  # that was GitHub's own contract, broken on purpose
    assert "it was revoked unused" in str(error)
    assert error.untouched
    assert github_bench.github.live == {}


async def test_a_token_that_is_wider_and_does_not_end_is_told(github_bench: GithubBench) -> None:
    github_bench.github.alter = WIDER["a higher level"]
    github_bench.github.replies["DELETE"] = [refused(503)]
    error = await refusal(github_bench.provider())
    github_bench.github.problems.clear()
    assert "could not be revoked" in str(error)
    assert not error.untouched


@pytest.mark.parametrize("body", [b"", b"{", {"token": ""}, {"token": 7}, {"token": "a\r\nb"}, {}])
async def test_an_answer_without_a_token_may_hide_one(
    github_bench: GithubBench, body: object
) -> None:
    github_bench.github.replies["POST"] = [Reply(201, body)]
    error = await refusal(github_bench.provider())
    github_bench.github.problems.clear()
    assert not error.untouched


async def test_metadata_comes_with_every_permission(github_bench: GithubBench) -> None:
    minted = await github_bench.provider().mint(request(permissions={"contents": "read"}))
    permissions = github_bench.github.live[text(minted)]["permissions"]
    assert permissions == {"metadata": "read", "contents": "read"}


async def test_what_was_not_granted_is_named(github_bench: GithubBench) -> None:
    scope = {"permissions": {"contents": "write", "issues": "read", "pages": "write"}}
    error = await refusal(github_bench.provider(), **scope)
    assert "has not been granted contents: write, pages: write;" in str(error)
    assert (error.code, error.retryable) == ("422", False)


async def test_a_repository_that_is_not_there_is_named(github_bench: GithubBench) -> None:
    error = await refusal(github_bench.provider(), repositories=["shop", "vault"])
    assert "acme does not have all of shop, vault" in str(error)


async def test_a_repository_of_another_owner_is_refused_before_github_is_asked(
    github_bench: GithubBench,
) -> None:
    error = await refusal(github_bench.provider(), repositories=["evil/shop"])
    assert "the installation is that of acme" in str(error)
    assert github_bench.github.orders == []


@pytest.mark.parametrize("installation", ["nobody", "nobody/shop", "acme/nothing", 8])
async def test_an_app_that_is_not_installed_is_told(
    github_bench: GithubBench, installation: str | int
) -> None:
    error = await refusal(github_bench.provider(installation=installation))
    assert f"App 12345 is not installed on {installation} (404)" in str(error)


async def test_a_suspended_installation_is_told_even_later(github_bench: GithubBench) -> None:
    provider = github_bench.provider()
    await provider.mint(request())
    github_bench.installation.suspended_at = "2030-01-01T00:00:00Z"
    for _ in range(2):
        assert "acme is suspended" in str(await refusal(provider))


async def test_what_is_installed_anew_is_found_again(github_bench: GithubBench) -> None:
    provider = github_bench.provider()
    await provider.mint(request())
    github_bench.installation.id = 70
    assert text(await provider.mint(request())) in github_bench.github.live


@pytest.mark.parametrize(
    ("status", "told"), [(403, "allowed addresses"), (404, "is gone"), (400, "answered 400")]
)
async def test_other_refusals_are_told(github_bench: GithubBench, status: int, told: str) -> None:
    github_bench.github.replies["POST"] = [refused(status)]
    error = await refusal(github_bench.provider())
    assert told in str(error)
    assert error.code == str(status)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "7"},
        {"account": None},
        {"account": {"login": 7}},
        {"permissions": None},
        {"id": None},
    ],
)
async def test_an_installation_that_is_none_is_told(
    github_bench: GithubBench, changes: dict[str, Any]
) -> None:
    described = github_bench.github._described(github_bench.installation) | changes
    github_bench.github.replies["GET"] = [Reply(200, described)]
    error = await refusal(github_bench.provider())
    github_bench.github.problems.clear()
    assert "does not say where the App is installed" in str(error)


async def test_an_installation_of_another_is_refused(github_bench: GithubBench) -> None:
    described = github_bench.github._described(github_bench.installation)
    described["account"]["login"] = "evil"
    github_bench.github.replies["GET"] = [Reply(200, described)]
    assert "installation of another" in str(await refusal(github_bench.provider()))


async def test_t4_not_even_a_scope_that_no_policy_can_have_is_sent(
    github_bench: GithubBench,
) -> None:
    hollows: tuple[dict[str, Any], ...] = (
        {"repositories": None, "repository_ids": None, "permissions": {"issues": "read"}},
        {"repositories": (), "repository_ids": None, "permissions": {"issues": "read"}},
        {"repositories": ("shop",), "repository_ids": None, "permissions": {}},
    )
    for hollow in hollows:
        asked = request()
        broken = CredentialRequest(
            asked.service,
            asked.agent,
            asked.grant,
            asked.scope,
            None,
            60,
            GithubAppScope.model_construct(**hollow),
        )
        with pytest.raises(ProviderError, match="without repositories and permissions"):
            await github_bench.provider().mint(broken)
    assert github_bench.github.orders == []


async def test_the_gateway_can_write_what_was_minted(github_bench: GithubBench) -> None:
    provider = github_bench.provider()
    minted = await provider.mint(request())
    injection = provider.present(minted, request())
    token = minted.fields["token"].reveal()
    assert injection.secrets[0].reveal() == token
    slots = PLUGIN.token_slots(github_bench.service())
    credential = Credential(injection, slots, 1.0)
    assert credential.lines.startswith(b"Authorization: Bearer %b\r\n" % token)
    assert len(credential.lines) > 300  # no token's length is taken for granted
    assert {slot.kind for slot in slots} == {"bearer", "header", "basic"}


@pytest.fixture
def provider(github_bench: GithubBench) -> GithubApp:
    return github_bench.provider()


NAMES = st.sampled_from(["shop", "bank", "till", "acme/shop", "ACME/till", "none", "evil/shop"])
LEVELS = st.sampled_from(["read", "write", "admin"])


FIELDS = st.fixed_dictionaries(
    {
        "permissions": st.dictionaries(st.sampled_from(["issues", "contents", "pages"]), LEVELS),
        "repositories": st.none() | st.lists(NAMES, max_size=3),
        "repository_ids": st.none() | st.lists(st.integers(1, 4), max_size=3),
    }
)


# Only levels that GitHub's contract knows for each: what it answers is held to that.
LOWER = st.sampled_from(["read", "write"])
ALSO = st.fixed_dictionaries(
    {},
    optional={"issues": LOWER, "pages": LOWER, "members": LOWER, "repository_projects": LEVELS},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=FIELDS,
    also=ALSO,
    others=st.lists(st.sampled_from(["shop", "bank", "till"]), max_size=2),
)
async def test_t4_no_token_can_do_more_than_its_scope_says(
    github_bench: GithubBench,
    provider: GithubApp,
    fields: dict[str, Any],
    also: dict[str, str],
    others: list[str],
) -> None:
    """Whatever the scope says, and however much more GitHub gives than it was asked for."""
    github, ids = github_bench.github, github_bench.installation.repositories

    def widen(document: Document) -> Document:
        more = [github.repository("acme", name, ids[name]) for name in others]
        permissions = {**document["permissions"], **also}
        return {
            **document,
            "permissions": permissions,
            "repositories": document["repositories"] + more,
        }

    github.alter = widen
    github.calls.clear()
    github.live.clear()
    try:
        asked = request(**fields)
    except ValidationError:
        return
    minted = None
    with suppress(ProviderError):
        minted = await provider.mint(asked)
    for order in github.orders:
        assert order["permissions"] == fields["permissions"] != {}
        assert order.get("repositories") or order.get("repository_ids")
    assert list(github.live) == ([text(minted)] if minted else [])
    for token in github.live.values():
        granted = {"metadata": "read", **fields["permissions"]}
        assert all(
            RANK[level] <= RANK[granted[name]] for name, level in token["permissions"].items()
        )
        named = {ids.get(name.rpartition("/")[2]) for name in fields["repositories"] or ()}
        wanted = named | {*(fields["repository_ids"] or ())}
        assert {one["id"] for one in token["repositories"]} <= wanted


async def test_a_real_api_takes_the_token_for_its_scope_and_for_nothing_else(
    github_bench: GithubBench, github_emulator: str
) -> None:
    provider = github_bench.provider(base_url=github_emulator, app_id=APP_ID)
    scope: dict[str, Any] = {"repositories": ["acme/shop"], "permissions": {"issues": "write"}}
    minted = await provider.mint(request(**scope))
    authorization = {"Authorization": f"Bearer {text(minted)}"}
    issue = {"title": "Found by an agent"}
    async with httpx.AsyncClient(base_url=github_emulator, headers=authorization) as client:
        made = await client.post("/repos/acme/shop/issues", json=issue)
        elsewhere = await client.post("/repos/acme/bank/issues", json=issue)
        contents = await client.put(
            "/repos/acme/shop/contents/a.txt", json={"message": "m", "content": "YQ=="}
        )
    assert made.status_code == 201
    assert {elsewhere.status_code, contents.status_code} <= {403, 404}
    error = await refusal(provider, permissions={"contents": "write"})
    assert "has not been granted contents: write" in str(error)
    error = await refusal(provider, repositories=["nothing"])
    assert "does not have all of nothing" in str(error)
    by_number = github_bench.provider(
        base_url=github_emulator, app_id=APP_ID, installation=INSTALLATION
    )
    assert text(await by_number.mint(request(**scope)))
