from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import PlainTextResponse

from broker.api.guard import Guard
from tests.fakes.token_bench import over

if TYPE_CHECKING:
    import httpx
    from starlette.types import Receive, Scope, Send


@pytest.mark.parametrize("path", ["/token", "/healthz", "/metrics", "/nowhere"])
async def test_every_answer_has_security_headers(
    token_client: httpx.AsyncClient, path: str
) -> None:
    headers = (await token_client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"


async def test_a_header_that_the_page_set_is_left_alone() -> None:
    page = PlainTextResponse("x", headers={"Cache-Control": "public, max-age=60"})
    async with over(Guard(page)) as client:
        assert (await client.get("/")).headers.get_list("cache-control") == ["public, max-age=60"]


async def test_an_exception_becomes_a_problem_that_names_its_log_entry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("hunter2")

    with caplog.at_level(logging.DEBUG):
        async with over(Guard(broken)) as client:
            response = await client.get("/page", params={"key": "hunter2"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["broker-error"] == "internal_error"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["detail"].rsplit(" ", 1)[1] in caplog.text
    assert "GET '/page' failed with RuntimeError" in caplog.text
    assert "Traceback" not in caplog.text + response.text
    records = [record for record in caplog.records if record.name.startswith("broker")]
    assert "hunter2" not in response.text + "".join(record.getMessage() for record in records)


async def test_an_exception_in_mid_answer_leaves_it_incomplete() -> None:
    sent: list[Any] = []

    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("hunter2")

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    await Guard(broken)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_what_is_no_request_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return None

    await Guard(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
