from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.fakes.token_bench import over

if TYPE_CHECKING:
    import httpx

    from tests.fakes.token_bench import TokenBench


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/tokens", "/token/"])
async def test_unknown_pages_are_problems(token_client: httpx.AsyncClient, path: str) -> None:
    response = await token_client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["broker-error"] == "not_found"
    assert response.json() == {
        "type": "urn:agent-token-broker:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no such page",
        "code": "not_found",
    }


async def test_wrong_methods_are_problems(token_client: httpx.AsyncClient) -> None:
    response = await token_client.delete("/healthz")
    assert response.status_code == 405
    assert response.headers["broker-error"] == "method_not_allowed"
    assert "GET" in response.headers["allow"]
    assert response.json()["detail"] == "DELETE is not served here"


async def test_an_exception_becomes_a_problem_that_names_its_log_entry(
    token_bench: TokenBench, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("hunter2")

    with caplog.at_level(logging.DEBUG):
        async with over(token_bench.app(jwks=broken)) as client:
            response = await client.get("/.well-known/jwks.json")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["broker-error"] == "internal_error"
    identifier = response.json()["detail"].rsplit(" ", 1)[1]
    assert identifier in caplog.text
    assert "RuntimeError" in caplog.text
    assert "broken" in caplog.text  # where it was raised
    assert "hunter2" not in caplog.text + response.text
    assert "Traceback" not in caplog.text + response.text
