from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.admin_bench import STRIPE, edit

if TYPE_CHECKING:
    from tests.fakes.admin_bench import AdminBench

JSON = {"Content-Type": "application/json"}
GOOD = edit("services", "stripe", STRIPE)
SECRET = "sk_live_" + "0123456789abcdefABCDEF"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "edits"),
        ({"edits": []}, "edits"),
        ({"edits": [GOOD], "x": 1}, "x"),
        ({"edits": [GOOD], "comment": 1}, "comment"),
        ({"edits": [GOOD], "comment": "x" * 501}, "comment"),
        ({"edits": [{**GOOD, "body": SECRET}]}, "edits.0.body"),
        ({"edits": [{**GOOD, "body": [1]}]}, "edits.0.body"),
        ({"edits": [{**GOOD, "expected": 1}]}, "edits.0.expected"),
        ({"edits": [{**GOOD, "name": None}]}, "edits.0.name"),
        ({"edits": [{"section": "services", "name": "x"}]}, "edits.0.body"),
        ({"edits": [GOOD] * 1001}, "edits"),
        ([], ""),
        ("x", ""),
    ],
)
async def test_a_body_has_one_form(admin: AdminBench, body: Any, field: str) -> None:
    answer = await admin.http.post("/policy/changes", json=body)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "text",
    [
        '{"edits": [], "edits": []}',
        '{"edits": [{"section": "services", "name": "a", "body": {"a": 1, "a": 2}}]}',
        '{"edits": ' + "[" * 100 + "]" * 100 + "}",
        '{"comment": NaN}',
        '{"comment": 1' + "0" * 30 + "}",
        '{"comment": "\\ud800"}',
        "\ufeff{}",
        "",
    ],
)
async def test_json_has_one_meaning(admin: AdminBench, text: str) -> None:
    answer = await admin.http.post("/policy/changes", content=text.encode(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": ""},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
async def test_a_form_that_a_page_can_send_is_refused(
    admin: AdminBench, headers: dict[str, str]
) -> None:
    body = json.dumps({"edits": [GOOD]}).encode()
    answer = await admin.http.post("/policy/changes", content=body, headers=headers)
    assert answer.status_code == 415
    assert await admin.storage.policies.number() == 0


async def test_a_charset_may_be_named(admin: AdminBench) -> None:
    body = json.dumps({"edits": [GOOD]}).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await admin.http.post("/policy/changes", content=body, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("version", [-1, "1", 1.5, None, True])
async def test_a_rollback_names_a_number(admin: AdminBench, version: Any) -> None:
    answer = await admin.http.post("/policy/rollback", json={"version": version})
    assert (answer.status_code, answer.json()["field"]) == (400, "version")
