"""Attacks on the admin API: D2, D4, D5, A4, P10, and agents that would write their own policy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.administrators import MOST_FAILURES
from tests.fakes.admin_bench import ALL, BOT, READ, STRIPE, edit, open_admin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.admin_bench import AdminBench
    from tests.fakes.token_bench import TokenBench

REBOUND = [
    "evil.example",
    "evil.example:8702",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.0.0.1:8702.evil.example",
    "good@evil.example:8702",
    "localhost:8702@evil.example",
    "0.0.0.0:8702",
    "[::ffff:127.0.0.1]:8702",
    "127.1:8702",
    "localhost.:8702",
    " 127.0.0.1:8702",
    "",
]
FOREIGN_PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:8702", "Sec-Fetch-Site": "cross-site"},
]


def _files(directory: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("host", REBOUND)
async def test_d2_a_foreign_host_is_refused_even_with_a_good_token(
    admin: AdminBench, host: str
) -> None:
    async with admin.client(admin.token, Host=host) as client:
        answer = await client.post("/policy/changes", json={"edits": [edit(*ALL[0])]})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_host")
    assert await admin.storage.policies.number() == 0
    assert admin.trail.records[0].detail == "foreign_host: foreign Host header"


@pytest.mark.parametrize("headers", FOREIGN_PAGES)
async def test_d2_a_foreign_page_is_refused_even_with_a_good_token(
    admin: AdminBench, headers: dict[str, str]
) -> None:
    async with admin.client(admin.token, **headers) as client:
        answer = await client.post("/policy/changes", json={"edits": [edit(*ALL[0])]})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert "access-control-allow-origin" not in answer.headers
    assert await admin.storage.policies.number() == 0


async def test_d2_a_preflight_is_not_answered_and_a_cookie_is_nobody(admin: AdminBench) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with admin.client(None, **preflight) as page:
        answer = await page.request("OPTIONS", "/policy/changes")
    assert answer.status_code == 403
    async with admin.client(None, Cookie=f"token={admin.token}") as page:
        assert (await page.get("/self")).status_code == 401
    async with admin.client(None) as page:
        assert (await page.get(f"/self?access_token={admin.token}")).status_code == 401


async def test_d4_guesses_share_one_counter_whatever_they_vary(admin: AdminBench) -> None:
    token_id = admin.token.split("_")[1]
    guesses = [
        *(f"atbadm_{token_id}_{number:064x}" for number in range(4)),
        *(f"atbadm_{number:012x}_{number:064x}" for number in range(4)),
        admin.token.upper(),
        "not-a-token",
        f"atbadm_{token_id}_{'f' * 64}",
        "another",
    ]
    statuses = []
    for number, guess in enumerate(guesses):
        address = {"X-Forwarded-For": f"198.51.100.{number}"}
        async with admin.client(guess, **address) as client:
            statuses.append((await client.get("/self")).status_code)
    assert statuses == [401] * MOST_FAILURES + [429] * (len(guesses) - MOST_FAILURES)
    assert (await admin.http.get("/self")).status_code == 200
    records = admin.trail.records
    assert len(records) == len(guesses)
    assert {record.source_address for record in records} == {"192.0.2.1"}
    assert (records[-1].detail or "").startswith("too_many_failures: not an administrator's token")


async def test_d5_the_secret_is_in_no_answer_record_or_file(
    admin: AdminBench, tmp_path: Path
) -> None:
    await admin.fill()
    wrong = f"{admin.token[:-8]}00000000"
    async with admin.client(wrong) as client:
        refused = await client.get("/self")
    texts = [refused.text, (await admin.http.get("/self")).text]
    texts += [(await admin.http.get("/policy/versions")).text, repr(admin.trail.records)]
    secret = admin.token.rpartition("_")[2]
    for text in texts:
        assert secret not in text
        assert wrong.rpartition("_")[2] not in text
    assert secret.encode() not in b"".join(_files(tmp_path))


async def test_d5_an_agent_cannot_use_its_task_token_here(
    admin: AdminBench, token_bench: TokenBench
) -> None:
    """octo-sts#887: policy writable by those it governs."""
    task = (await token_bench.ask()).access_token
    async with admin.client(task) as agent:
        for method, path in (("GET", "/policy"), ("POST", "/policy/changes")):
            answer = await agent.request(method, path, json={"edits": [edit(*ALL[0])]})
            assert answer.status_code == 401
    assert await admin.storage.policies.number() == 0
    assert "not an administrator's token" in (admin.trail.records[0].detail or "")


async def test_a4_what_administrators_do_and_fail_to_do_is_recorded(admin: AdminBench) -> None:
    async with admin.client(None) as stranger:
        await stranger.post("/policy/changes", json={})
    async with admin.client(await admin.new_token("reader", "policy:read")) as reader:
        await reader.post("/policy/changes", json={"edits": [edit(*ALL[0])]})
    await admin.fill()
    await admin.change(edit("services", "stripe", None, "*"), comment="\u202ecleanup")
    await admin.change(edit("services", "stripe", None, "*"), comment="clean up")
    await admin.change(edit("services", "stripe", {**STRIPE, "base_url": "x"}, "stale"))
    seen = [(one.action, one.phase, one.decision, one.subject) for one in admin.trail.records]
    assert seen == [
        ("admin.request", "outcome", "deny", None),
        ("admin.request", "outcome", "deny", "admin:reader"),
        ("policy.change", "intent", "allow", "admin:terraform"),
        ("policy.change", "outcome", "allow", "admin:terraform"),
        ("policy.change", "intent", "allow", "admin:terraform"),
        ("policy.change", "outcome", "deny", "admin:terraform"),
        ("admin.request", "outcome", "deny", "admin:terraform"),
        ("policy.change", "intent", "allow", "admin:terraform"),
        ("policy.change", "outcome", "deny", "admin:terraform"),
        ("policy.change", "intent", "allow", "admin:terraform"),
        ("policy.change", "outcome", "deny", "admin:terraform"),
    ]


BAD_BODIES: list[dict[str, Any]] = [
    {},
    {**READ, "servce": "stripe"},
    {**READ, "allow": []},
    {**READ, "allow": None},
    {**READ, "allow": ["GET /" + "*" * 500]},
    {**READ, "allow": ["GET /" + "**/" * 200 + "x"]},
    {**READ, "description": "a\u202eb"},
    {**READ, "description": "a\x00b"},
    {**READ, "x" * 2000: 1},
    {**READ, "max_ttl": 1e300},
    {**READ, "max_ttl": 10**19},
    {**READ, "allow": [["GET /x"]] * 500},
    {"service": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}},
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=map(str, range(len(BAD_BODIES))))
async def test_p10_a_policy_that_does_not_load_changes_nothing_in_bounded_time(
    admin: AdminBench, body: dict[str, Any]
) -> None:
    await admin.fill()
    version = admin.policies.current.version
    began = time.monotonic()
    problems = await admin.check(edit("scopes", "stripe.read", body, "*"))
    answer = await admin.change(edit("scopes", "stripe.read", body, "*"))
    assert time.monotonic() - began < 30
    assert answer.status_code == 422
    assert answer.json()["problems"] == problems
    assert {one["name"] for one in problems} <= {"stripe.read", "bot"}
    assert admin.policies.current.version == version
    assert await admin.storage.policies.number() == 1


async def test_p10_what_is_kept_survives_whatever_was_refused(tmp_path: Path) -> None:
    async with open_admin(tmp_path / "home") as admin:
        await admin.fill()
        await admin.change(edit("agents", "bot", {**BOT, "scopes": ["gone"]}, "*"))
        kept = await admin.storage.policies.kept()
        assert [entry.change.number for entry in kept.entries] == [1, 1, 1]


@pytest.mark.parametrize("reference", ["file:KEYS/master.key", "env:BROKER_MASTER_KEY"])
async def test_d5_an_administrator_cannot_have_the_brokers_own_keys_sent_somewhere(
    admin: AdminBench, reference: str
) -> None:
    """Who may write policy from elsewhere is not the owner of the broker's machine."""
    secret = reference.replace("KEYS", str(admin.settings.home / "keys"))
    service = {
        "provider": "http_api",
        "base_url": "https://collector.example",
        "credential": {"type": "bearer", "secret": secret},
    }
    (problem,) = await admin.check(edit("services", "leak", service))
    assert problem["field"] == "credential.secret"
    answer = await admin.change(edit("services", "leak", service))
    assert answer.status_code == 422
    assert "may stand in policy files alone" in answer.text
    assert "leak" not in admin.policies.current.services
    assumed = await admin.check(edit("services", "leak", service), assume=[("scopes", "x")])
    assert assumed == [problem]
