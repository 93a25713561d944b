from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.admin_bench import ALL, BOT, READ, STRIPE, edit

if TYPE_CHECKING:
    from tests.fakes.admin_bench import AdminBench


async def test_the_summary_says_what_is_in_force(admin: AdminBench) -> None:
    before = (await admin.http.get("/policy")).json()
    assert before == {
        "policy_version": admin.policies.current.version,
        "version": 0,
        "identity_sources": 1,
        "services": 1,
        "scopes": 1,
        "agents": 1,
    }
    await admin.fill()
    after = (await admin.http.get("/policy")).json()
    assert (after["version"], after["services"]) == (1, 2)
    assert after["policy_version"] == admin.policies.current.version != before["policy_version"]


async def test_entries_are_read_wherever_they_are_defined(admin: AdminBench) -> None:
    await admin.fill()
    listed = (await admin.http.get("/policy/services")).json()["entries"]
    assert [(one["name"], one["origin"]) for one in listed] == [
        ("stripe", "api"),
        ("orders", "file"),
    ]
    kept = await admin.http.get("/policy/services/stripe")
    entry = kept.json()
    assert (entry["body"], entry["version"], entry["comment"]) == (STRIPE, 1, "first")
    assert (entry["changed_by"], entry["place"]) == ("admin:terraform", None)
    assert kept.headers["etag"] == f'"{entry["etag"]}"'
    defined = await admin.http.get("/policy/services/orders")
    assert defined.json()["body"]["base_url"] == "https://orders.example"
    assert defined.json()["place"].endswith("own.yaml:2:3")
    assert "etag" not in defined.headers
    assert (await admin.http.get("/policy/services/nothing")).status_code == 404
    assert (await admin.http.get("/policy/servces")).json()["field"] == "section"


async def test_a_change_is_in_force_when_it_is_answered(admin: AdminBench) -> None:
    answer = await admin.change(*(edit(*one) for one in ALL), comment="first")
    assert answer.status_code == 200
    data = answer.json()
    assert (data["changed"], data["version"]) == (True, 1)
    assert data["policy_version"] == admin.policies.current.version
    assert {one["name"] for one in data["entries"]} == {"stripe", "stripe.read", "bot"}
    assert admin.policies.current.agents["bot"].scopes == ("stripe.read",)
    again = (await admin.change(edit("agents", "bot", BOT, "*"))).json()
    assert (again["changed"], again["version"], again["digest"]) == (False, 1, None)


async def test_a_change_that_would_not_load_is_refused_as_check_says(admin: AdminBench) -> None:
    await admin.fill()
    wrong = edit("agents", "bot", {**BOT, "scopes": ["stripe.raed"]}, "*")
    checked = await admin.check(wrong)
    answer = await admin.change(wrong)
    assert answer.status_code == 422
    assert answer.json()["problems"] == checked
    (problem,) = checked
    assert (problem["section"], problem["name"], problem["field"]) == ("agents", "bot", "scopes[0]")
    assert "did you mean 'stripe.read'?" in problem["message"]
    assert (await admin.http.get("/policy")).json()["version"] == 1
    assert admin.policies.current.agents["bot"].scopes == ("stripe.read",)


async def test_a_file_that_is_wrong_is_told_by_its_place(admin: AdminBench) -> None:
    (admin.settings.policies / "bad.yaml").write_text("agents: {x: {}}\n")
    problems = await admin.check(edit("services", "stripe", STRIPE))
    assert problems
    assert all("bad.yaml:1:" in one["place"] for one in problems)


async def test_what_cannot_be_told_yet_can_be_assumed(admin: AdminBench) -> None:
    scope = edit("scopes", "stripe.read", READ)
    assert await admin.check(scope) != []
    assert await admin.check(scope, assume=[("services", "stripe")]) == []
    body = {"edits": [], "assume": [{"section": "x", "name": "y"}]}
    assert (await admin.http.post("/policy/check", json=body)).status_code == 400


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (edit("services", "stripe", STRIPE, None), 412, "exists"),
        (edit("services", "stripe", None, "1-0000"), 412, "changed"),
        (edit("services", "gone", None, "*"), 404, "absent"),
        (edit("services", "orders", None, "*"), 409, "in_file"),
        (edit("services", "A B", STRIPE, None), 400, "invalid_request"),
        (edit("service", "a", STRIPE, None), 400, "invalid_request"),
    ],
)
async def test_conflicts_have_a_status_of_their_own(
    admin: AdminBench, asked: dict[str, Any], status: int, code: str
) -> None:
    await admin.fill()
    answer = await admin.change(asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["broker-error"] == code


async def test_history_and_rollback(admin: AdminBench) -> None:
    await admin.fill()
    await admin.change(edit("agents", "bot", None, "*"), comment="not needed")
    versions = (await admin.http.get("/policy/versions")).json()["versions"]
    assert [(one["version"], one["comment"]) for one in versions] == [
        (2, "not needed"),
        (1, "first"),
    ]
    assert versions[0]["edits"] == [{"section": "agents", "name": "bot", "body": None}]
    assert versions[0]["previous"] == versions[1]["digest"]
    first = await admin.http.get("/policy/versions", params={"before": "2", "limit": "1"})
    assert [one["version"] for one in first.json()["versions"]] == [1]
    back = await admin.http.post("/policy/rollback", json={"version": 1, "comment": "needed"})
    assert (back.status_code, back.json()["version"]) == (200, 3)
    assert "bot" in admin.policies.current.agents
    assert (await admin.http.post("/policy/rollback", json={"version": 9})).status_code == 404
    (admin.settings.policies / "taken.yaml").write_text(
        "agents: {bot: {trust: [{source: local, claims: {sub: b}}], scopes: [orders.read]}}"
    )
    refused = await admin.http.post("/policy/rollback", json={"version": 2})
    assert refused.status_code == 200  # the agent is the file's from now on
    refused = await admin.http.post("/policy/rollback", json={"version": 1})
    assert refused.status_code == 422
    assert refused.json()["problems"][0]["name"] == "bot"


@pytest.mark.parametrize(
    "query", ["before=0", "before=-1", "before=x", "limit=0", "before=1e3", "limit=99999999999"]
)
async def test_pages_of_versions_are_asked_for_by_number(admin: AdminBench, query: str) -> None:
    assert (await admin.http.get(f"/policy/versions?{query}")).status_code == 400


async def test_a_check_tells_of_a_policy_file_that_cannot_be_trusted(admin: AdminBench) -> None:
    (admin.settings.policies / "own.yaml").chmod(0o666)
    answer = await admin.http.post("/policy/check", json={"edits": [edit(*ALL[0])]})
    assert answer.status_code == 200
    data = answer.json()
    assert not data["loads"]
    assert "own.yaml" in data["problems"][0]["place"]
