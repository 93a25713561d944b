from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.aws_bench import EXPIRATION, use_aws
from tests.fakes.sts import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.fakes.lease_bench import LeaseBench
    from tests.fakes.sts import Sts

GRANT: dict[str, Any] = {
    "scopes": ("s3.read", "plain.use"),
    "claims": {"branch": "main", "repository": "acme/app"},
}


@pytest.fixture
def sts(lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    with answering(expiration=EXPIRATION) as server:
        use_aws(lease_bench, server.url, monkeypatch)
        yield server


async def get(
    bench: LeaseBench, name: str = "s3.read", *, method: str = "GET", **headers: str
) -> httpx.Response:
    headers = headers or {"Authorization": bench.token(**GRANT).decode()}
    async with bench.client() as client:
        return await client.request(method, f"/credentials/aws/{name}", headers=headers)


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer  "])
async def test_a_session_in_the_shape_of_container_credentials(
    lease_bench: LeaseBench, sts: Sts, prefix: str
) -> None:
    token = lease_bench.token(**GRANT).decode()
    response = await get(lease_bench, Authorization=f"{prefix}{token}")
    assert response.status_code == 200, response.text
    assert response.json() == {
        "AccessKeyId": "ASIAMINTED",
        "SecretAccessKey": "minted-secret",
        "Token": "minted-token",
        "Expiration": "2025-06-15T15:21:40Z",
    }
    assert response.headers["cache-control"] == "no-store"
    assert sts.only()["RoleSessionName"].startswith("coder@tidy-up-")
    assert (await lease_bench.only()).state == "delivered"


async def test_an_sdk_that_asks_before_each_call_gets_the_same(
    lease_bench: LeaseBench, sts: Sts
) -> None:
    answers = [(await get(lease_bench)).json() for _ in range(30)]
    assert all(answer == answers[0] for answer in answers)
    assert len(sts.calls) == 1


async def test_a_session_that_outlives_its_grant_is_not_said_to(
    lease_bench: LeaseBench, sts: Sts
) -> None:
    lease_bench.clock.now += 600
    response = await get(lease_bench)
    assert response.json()["Expiration"] == "2025-06-15T15:21:40Z"
    assert sts.policy()["Statement"][-1]["Effect"] == "Deny"
    assert (await lease_bench.only()).grant_ends_at == lease_bench.clock.now + 300


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"X": "y"}, 401, "token_missing"),
        ({"Authorization": "Basic YTpi"}, 401, "invalid_token"),
        ({"Authorization": "a b"}, 401, "invalid_token"),
        ({"Authorization": "not-a-token"}, 401, "invalid_token"),
        ({"Authorization": ""}, 401, "invalid_token"),
    ],
)
async def test_without_a_good_token_there_is_no_session(
    lease_bench: LeaseBench, sts: Sts, headers: dict[str, str], status: int, code: str
) -> None:
    response = await get(lease_bench, **headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert not sts.calls
    assert lease_bench.records()[-1]["decision"] == "deny"


async def test_a_scope_of_another_provider_is_refused(lease_bench: LeaseBench) -> None:
    response = await get(lease_bench, "plain.use", Authorization=lease_bench.token().decode())
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert not lease_bench.vendor.calls


@pytest.mark.parametrize("name", ["s3.write", "%2e%2e", "S3.READ", "a%00b", "s3.read%20"])
async def test_a_scope_that_the_token_does_not_have_is_refused(
    lease_bench: LeaseBench, sts: Sts, name: str
) -> None:
    response = await get(lease_bench, name)
    assert response.status_code in {400, 403, 404}
    assert not sts.calls


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_it_is_only_read(lease_bench: LeaseBench, sts: Sts, method: str) -> None:
    response = await get(lease_bench, method=method)
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert not sts.calls


async def test_parameters_in_the_url_are_refused(lease_bench: LeaseBench, sts: Sts) -> None:
    response = await get(lease_bench, "s3.read?token=x")
    assert response.status_code == 400
    assert not sts.calls


async def test_a_revoked_grant_gets_no_session_again(lease_bench: LeaseBench, sts: Sts) -> None:
    await get(lease_bench)
    await lease_bench.revoke()
    response = await get(lease_bench)
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert len(sts.calls) == 1
