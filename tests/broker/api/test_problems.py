from __future__ import annotations

import json
import logging

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from broker.api.problems import on_http_exception, problem, report


def _request(method: str) -> Request:
    return Request({"type": "http", "method": method, "headers": []})


def test_a_problem() -> None:
    response = problem(403, "policy_denied", "no rule allows this", headers={"X-More": "1"})
    assert response.status_code == 403
    assert response.media_type == "application/problem+json"
    assert response.headers["broker-error"] == "policy_denied"
    assert response.headers["x-more"] == "1"
    assert json.loads(bytes(response.body)) == {
        "type": "urn:agent-token-broker:policy_denied",
        "title": "Forbidden",
        "status": 403,
        "detail": "no rule allows this",
        "code": "policy_denied",
    }


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (404, "not_found", "there is no such page"),
        (405, "method_not_allowed", "PUT is not served here"),
        (400, "refused", "PUT is not served here"),
    ],
)
async def test_what_the_router_refuses(status: int, code: str, detail: str) -> None:
    error = HTTPException(status, headers={"Allow": "GET"})
    response = await on_http_exception(_request("PUT"), error)
    assert response.status_code == status
    assert response.headers["allow"] == "GET"
    document = json.loads(bytes(response.body))
    assert (document["code"], document["detail"]) == (code, detail)


def test_a_report_names_type_and_place_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def fails(secret: str) -> None:
        raise RuntimeError(secret)

    with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError) as caught:
        fails("hunter2")
    identifier = report(caught.value, "GET /x")
    other = report(caught.value, "GET /x")
    assert identifier != other
    assert identifier in caplog.text
    assert "GET /x failed with RuntimeError" in caplog.text
    assert "fails" in caplog.text
    assert "hunter2" not in caplog.text
