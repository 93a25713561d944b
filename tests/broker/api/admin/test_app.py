from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.errors import StorageError
from tests.fakes.admin_bench import ALL, STRIPE, edit

if TYPE_CHECKING:
    from tests.fakes.admin_bench import AdminBench


async def test_a_token_can_ask_who_it_is(admin: AdminBench) -> None:
    answer = await admin.http.get("/self")
    assert answer.status_code == 200
    assert answer.json()["name"] == "terraform"
    assert answer.json()["permissions"] == ["policy:read", "policy:write"]
    assert admin.token not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/policies", "/policy/", "/policy/scopes/a/b", "/../token"])
async def test_unknown_pages_are_problems(admin: AdminBench, path: str) -> None:
    answer = await admin.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["broker-error"] == "not_found"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/policy/changes"), ("DELETE", "/policy")])
async def test_wrong_methods_are_problems(admin: AdminBench, method: str, path: str) -> None:
    answer = await admin.http.request(method, path)
    assert answer.status_code in {404, 405}
    assert "broker-error" in answer.headers


async def test_reading_takes_another_permission_than_writing(admin: AdminBench) -> None:
    async with admin.client(await admin.new_token("reader", "policy:read")) as reader:
        assert (await reader.get("/policy")).status_code == 200
        assert (await reader.post("/policy/check", json={"edits": []})).status_code == 200
        for path in ("/policy/changes", "/policy/rollback"):
            answer = await reader.post(path, json={})
            assert answer.status_code == 403
            assert answer.json()["code"] == "forbidden"
            assert "policy:write is needed" in answer.json()["detail"]
    async with admin.client(await admin.new_token("writer", "policy:write")) as writer:
        assert (await writer.get("/policy")).status_code == 403
    refusals = [one for one in admin.trail.records if one.action == "admin.request"]
    assert [one.subject for one in refusals] == ["admin:reader", "admin:reader", "admin:writer"]
    assert {one.decision for one in refusals} == {"deny"}


async def test_a_request_that_cannot_be_read_is_refused_and_recorded(admin: AdminBench) -> None:
    json = {"Content-Type": "application/json"}
    cases = {
        415: await admin.http.post("/policy/changes", content=b"{}"),
        400: await admin.http.post("/policy/changes", content=b"{", headers=json),
        413: await admin.http.post("/policy/changes", content=b" " * (1 << 21), headers=json),
    }
    for status, answer in cases.items():
        assert answer.status_code == status
    assert [one.status for one in admin.trail.records] == [415, 400, 413]
    assert {one.subject for one in admin.trail.records} == {"admin:terraform"}


async def test_without_a_trail_nothing_is_done(admin: AdminBench) -> None:
    admin.trail.full = True
    answer = await admin.change(edit("services", "stripe", STRIPE))
    assert answer.status_code == 503
    assert "audit trail" in answer.json()["detail"]
    async with admin.client(None) as stranger:
        assert (await stranger.get("/policy")).status_code == 503
    assert await admin.storage.policies.number() == 0


async def test_without_a_store_nothing_is_answered(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(admin.storage.policies, "kept", fail)
        answer = await admin.http.get("/policy/scopes")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    monkeypatch.setattr(admin.storage.admin_tokens, "find", fail)
    assert (await admin.http.get("/policy")).status_code == 503


async def test_a_defect_is_answered_without_its_text(
    admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("sk_live_0123456789abcdef")

    monkeypatch.setattr(admin.storage.policies, "kept", fail)
    answer = await admin.change(*(edit(*one) for one in ALL))
    assert answer.status_code == 500
    assert "sk_live" not in answer.text
