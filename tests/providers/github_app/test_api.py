from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from broker import http
from providers.base import Dependencies, ProviderError
from providers.github_app import api
from providers.github_app.api import GithubApi
from tests.fakes.github import Reply, refused, serving_github
from tests.fakes.github_bench import PEM, Values

if TYPE_CHECKING:
    from tests.components.tls import TestAuthority
    from tests.fakes.github_bench import GithubBench

LOOKUP = "orgs/acme/installation"


def caller(bench: GithubBench, pem: bytes | None = None, **fields: Any) -> GithubApi:
    secrets = Values({PEM: bench.key.pem if pem is None else pem})
    return GithubApi(bench.service(**fields), Dependencies(secrets, http.client, bench.clock))


async def refusal(bench: GithubBench, github: GithubApi | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as error:
        await (github or caller(bench)).as_app("GET", LOOKUP)
    assert "SECRET TEXT" not in str(error.value)
    return error.value


async def test_the_app_proves_who_it_is_for_minutes(github_bench: GithubBench) -> None:
    answer = await caller(github_bench).as_app("GET", LOOKUP)
    assert (answer.status, answer.document["id"]) == (200, 7)
    (call,) = github_bench.github.calls
    proof = call.headers["authorization"].removeprefix("Bearer ")
    assert jwt.get_unverified_header(proof)["alg"] == "RS256"
    claims = jwt.decode(proof, options={"verify_signature": False})
    assert claims["iss"] == "12345"
    assert claims["exp"] - claims["iat"] == 600
    assert abs(claims["iat"] + 60 - github_bench.clock()) < 30
    assert call.headers["accept"] == "application/vnd.github+json"
    assert call.headers["x-github-api-version"] == "2022-11-28"


async def test_the_proof_is_used_for_a_while_and_as_long_as_its_key(
    github_bench: GithubBench,
) -> None:
    secrets = Values({PEM: github_bench.key.pem})
    dependencies = Dependencies(secrets, http.client, github_bench.clock)
    github = GithubApi(github_bench.service(), dependencies)

    async def proof() -> str:
        await github.as_app("GET", LOOKUP)
        return github_bench.github.calls[-1].headers["authorization"]

    first = await proof()
    github_bench.clock.ahead += 290
    assert await proof() == first
    github_bench.clock.ahead += 11
    second = await proof()
    assert second != first
    github_bench.clock.ahead -= 200
    assert await proof() != second
    secrets.values[PEM] = b"no key"
    with pytest.raises(ProviderError, match="no RSA private key"):
        await proof()


async def test_a_client_id_does_as_well(github_bench: GithubBench) -> None:
    github_bench.github.app_id = "Iv23liAbC"
    answer = await caller(github_bench, app_id="Iv23liAbC").as_app("GET", LOOKUP)
    assert answer.status == 200


async def test_a_key_that_is_not_the_apps_is_told(github_bench: GithubBench) -> None:
    error = await refusal(github_bench, caller(github_bench, app_id=999))
    assert "private_key is not one of its keys" in str(error)
    assert (error.retryable, error.code, error.untouched) == (False, "401", True)


@pytest.mark.parametrize(
    "pem",
    [b"", b"\xff", b"-----BEGIN RSA PRIVATE KEY-----\nMIIEpQIB\n-----END RSA PRIVATE KEY-----\n"],
)
async def test_c2_what_is_no_key_is_told_and_not_repeated(
    github_bench: GithubBench, pem: bytes
) -> None:
    error = await refusal(github_bench, caller(github_bench, pem))
    assert "env:APP_KEY is no RSA private key in PEM" in str(error)
    assert "MIIE" not in str(error)
    assert not github_bench.github.calls


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (403, {"retry-after": "30"}, 30),
        (429, {"retry-after": "30"}, 30),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "+90"}, 90),
        (429, {}, 60),
        (429, {"retry-after": "soon"}, 60),
        (429, {"retry-after": "9" * 400}, 60),
        (429, {"retry-after": "999999"}, 3600),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 1),
    ],
)
async def test_who_is_limited_asks_no_more(
    github_bench: GithubBench, status: int, headers: dict[str, str], wait: int
) -> None:
    if headers.get("x-ratelimit-reset") == "+90":
        headers = {**headers, "x-ratelimit-reset": str(int(github_bench.clock()) + 90)}
    github_bench.github.replies["GET"] = [refused(status, **headers)]
    github = caller(github_bench)
    error = await refusal(github_bench, github)
    assert (error.retryable, error.untouched, error.code) == (True, True, str(status))
    again = await refusal(github_bench, github)
    assert again.retryable
    assert len(github_bench.github.calls) == 1
    github_bench.clock.ahead += wait + 1
    assert (await github.as_app("GET", LOOKUP)).status == 200


async def test_a_secondary_limit_is_known_by_what_it_is_called(github_bench: GithubBench) -> None:
    url = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"
    reply = Reply(403, {"message": "SECRET TEXT", "documentation_url": url})
    github_bench.github.replies["GET"] = [reply]
    assert "in 60 s" in str(await refusal(github_bench))


async def test_r2_a_limit_on_tokens_is_kept_to_and_does_not_stop_the_app(
    github_bench: GithubBench,
) -> None:
    github = caller(github_bench)
    github_bench.github.replies["DELETE"] = [refused(403, retry_after="40")]
    for _ in range(3):
        with pytest.raises(ProviderError, match="limits how often") as error:
            await github.as_token("DELETE", "installation/token", "ghs_x")
        assert error.value.retryable
    assert len(github_bench.github.calls) == 1
    assert (await github.as_app("GET", LOOKUP)).status == 200
    github_bench.clock.ahead += 41
    assert (await github.as_token("DELETE", "installation/token", "ghs_x")).status == 401


async def test_another_refusal_is_no_limit(github_bench: GithubBench) -> None:
    github_bench.github.replies["GET"] = [refused(403, x_ratelimit_remaining="4999")]
    assert (await caller(github_bench).as_app("GET", LOOKUP)).status == 403


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_outage_may_pass(github_bench: GithubBench, method: str, status: int) -> None:
    github_bench.github.replies[method] = [refused(status)]
    path = LOOKUP if method == "GET" else "app/installations/7/access_tokens"
    with pytest.raises(ProviderError, match=f"answered {status}") as error:
        await caller(github_bench).as_app(method, path, b"{}" if method == "POST" else None)
    assert error.value.retryable
    assert error.value.untouched is (method == "GET")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
async def test_what_is_no_document_holds_nothing(github_bench: GithubBench, content: bytes) -> None:
    github_bench.github.replies["GET"] = [Reply(200, content)]
    assert (await caller(github_bench).as_app("GET", LOOKUP)).document == {}


async def test_an_answer_that_is_too_long_is_not_read(
    github_bench: GithubBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_LONGEST_ANSWER", 1000)
    github_bench.github.replies["GET"] = [Reply(200, b" " * 1001)]
    error = await refusal(github_bench)
    assert "more than 1000 bytes" in str(error)
    assert not error.untouched


async def test_redirects_are_not_followed(github_bench: GithubBench) -> None:
    github_bench.github.replies["GET"] = [Reply(301, b"", {"Location": "/elsewhere"})]
    assert (await caller(github_bench).as_app("GET", LOOKUP)).status == 301
    assert len(github_bench.github.calls) == 1


async def test_a_github_that_is_not_there_has_done_nothing(github_bench: GithubBench) -> None:
    github = caller(github_bench, base_url="http://127.0.0.1:1")
    with pytest.raises(ProviderError, match="cannot be reached") as error:
        await github.as_app("POST", "app/installations/7/access_tokens", b"{}")
    assert error.value.retryable
    assert error.value.untouched


async def test_a_github_that_says_nothing_is_given_up(
    github_bench: GithubBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ProviderError, match="did not answer") as error:
            await caller(github_bench, base_url=url).as_app("POST", "x/access_tokens", b"{}")
    assert error.value.retryable
    assert not error.value.untouched


async def test_u6_an_enterprise_server_is_reached_where_policy_says_so(
    github_bench: GithubBench, tls_authority: TestAuthority
) -> None:
    context = tls_authority.certificate("127.0.0.1").context()
    with serving_github(github_bench.github, context) as github:
        own: dict[str, Any] = {
            "base_url": f"{github.url}/api/v3",
            "ca_file": str(tls_authority.ca_file),
        }
        answer = await caller(github_bench, **own, allow_private=True).as_app("GET", LOOKUP)
        assert answer.status == 200
        with pytest.raises(ProviderError, match="not a public address"):
            await caller(github_bench, **own).as_app("GET", LOOKUP)
        with pytest.raises(ProviderError, match="cannot be reached"):  # of another authority
            await caller(github_bench, base_url=github.url, allow_private=True).as_app(
                "GET", LOOKUP
            )
        assert len(github.calls) == 1
