from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import LimitsUnavailable
from tests.fakes.lease_bench import GRANT, NOW, POLICY
from tests.fakes.vendor_mint import GONE, REFUSED

if TYPE_CHECKING:
    import httpx

    from tests.fakes.lease_bench import LeaseBench


async def post(
    bench: LeaseBench, body: Any = None, *, token: bytes | None = None, **how: Any
) -> httpx.Response:
    """Ask for a credential as the grant's holder, with changes."""
    if token is None:
        token = bench.token()
    headers = how.pop("headers", {"Authorization": f"Bearer {token.decode()}"})
    content = how or {"json": {"scope": "reserving.use"} if body is None else body}
    async with bench.client() as client:
        return await client.post("/credentials", headers=headers, **content)


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["code"]) == (status, code), document
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["broker-error"] == code
    assert response.headers["cache-control"] == "no-store"
    assert document["status"] == status
    assert document["detail"]
    return document


async def test_a_credential_and_its_lease(lease_bench: LeaseBench) -> None:
    response = await post(lease_bench)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    assert "broker-error" not in response.headers
    lease = await lease_bench.only()
    assert response.json() == {
        "lease": lease.id,
        "service": "reserving",
        "scope": "reserving.use",
        "expires_at": GRANT.expires_at,
        "renewed_until": GRANT.expires_at,
        "credential": {"password": "user-1:900"},
    }
    assert lease.state == "delivered"
    assert response.headers["broker-operation"] == lease_bench.records()[-1]["operation"]


async def test_a_form_says_the_same(lease_bench: LeaseBench) -> None:
    form = {"scope": "plain.use", "service": "plain"}
    response = await post(lease_bench, data=form)
    assert response.json()["credential"] == {"username": "user-1", "password": "hunter2"}
    assert "renewed_until" not in response.json()


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "token_missing"),
        ("", "invalid_token"),
        ("Basic YTpi", "invalid_token"),
        ("Bearer", "invalid_token"),
        ("Bearer a b", "invalid_token"),
        ("Bearer a.b.c", "invalid_token"),
        ("Bearer é".encode(), "invalid_token"),
    ],
)
async def test_no_task_token(lease_bench: LeaseBench, authorization: Any, code: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await post(lease_bench, headers=headers, json={"scope": "reserving.use"})
    is_problem(response, 401, code)
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="credentials"')
    assert ("error=" in challenge) == (code == "invalid_token")
    (record,) = lease_bench.records()
    assert record["decision"] == "deny"
    assert response.headers["broker-operation"] == record["operation"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "scope is missing"),
        ({"scope": ""}, "scope is missing"),
        ({"scope": ["a", "b"]}, "given twice"),
        ({"scope": 5, "service": {}}, ""),
        ({"scope": "a", "scop": "b"}, "did you mean 'scope'?"),
        ({"scope": "a", "token": "hunter2"}, "a parameter is unknown"),
        ({"scope": "a" * 65}, "up to 64 characters"),
        ({"scope": "a\nb"}, "up to 64 characters"),
        ({"scope": "plain.use", "service": "reserving"}, "of service plain"),
        ([], "must be a JSON object"),
    ],
)
async def test_bodies_that_ask_for_nothing_clear(
    lease_bench: LeaseBench, body: Any, text: str
) -> None:
    response = await post(lease_bench, body)
    if text:
        document = is_problem(response, 400, "invalid_request")
        assert text in document["detail"]
    else:
        assert response.status_code in {400, 403}
    assert "hunter2" not in response.text
    assert [one["decision"] for one in lease_bench.records()] == ["deny"]
    assert lease_bench.vendor.calls == []


@pytest.mark.parametrize(
    ("scope", "change", "status", "code"),
    [
        ("reserving.use", {"scopes": ("plain.use",)}, 403, "insufficient_scope"),
        ("api.read", {}, 403, "delivery_refused"),
        ("reserving.why", {}, 403, "reason_required"),
    ],
)
async def test_what_policy_refuses_says_what_it_would_allow(
    lease_bench: LeaseBench, scope: str, change: dict[str, Any], status: int, code: str
) -> None:
    response = await post(lease_bench, {"scope": scope}, token=lease_bench.token(**change))
    document = is_problem(response, status, code)
    assert document["rule"]
    assert "plain.use" in document["allowed"] or code == "reason_required"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [(GONE, 503, "credential_unavailable"), (REFUSED, 502, "credential_refused")],
)
async def test_what_the_vendor_refuses(
    lease_bench: LeaseBench, failure: Exception, status: int, code: str
) -> None:
    lease_bench.vendor.fail["mint"] = [failure]
    response = await post(lease_bench)
    is_problem(response, status, code)
    assert ("retry-after" in response.headers) == (status == 503)


async def test_too_many(lease_bench: LeaseBench) -> None:
    for _ in range(20):
        assert (await post(lease_bench)).status_code == 200
    is_problem(await post(lease_bench), 429, "too_many_credentials")


def limit(bench: LeaseBench, of_scope: str = "", of_agent: str = "") -> None:
    """Put limits on reserving.use and on its agent."""
    text = POLICY
    if of_scope:
        plain = "reserving.use: {service: reserving,"
        text = text.replace(plain, f"{plain} limits: {of_scope},")
    bench.policy = bench.load(f"{text}    limits: {of_agent}\n" if of_agent else text)


async def test_credentials_are_counted_by_rate(lease_bench: LeaseBench) -> None:
    limit(lease_bench, "{rate: 2/minute}", "{rate: 3/hour}")
    for _ in range(2):
        assert (await post(lease_bench)).status_code == 200
    response = await post(lease_bench, token=lease_bench.token(jti="another"))
    problem = is_problem(response, 429, "limit_exceeded")
    assert problem["limit"] == "scope reserving.use: rate 2/minute"
    assert response.headers["retry-after"] == "60"
    record = lease_bench.records()[-1]
    assert (record["phase"], record["decision"]) == ("outcome", "deny")
    assert record["detail"].startswith("limit_exceeded: the limit is reached: scope reserving.use")
    assert response.headers["broker-operation"] == record["operation"]
    assert (await post(lease_bench, {"scope": "plain.use"})).status_code == 200
    problem = is_problem(await post(lease_bench, {"scope": "plain.use"}), 429, "limit_exceeded")
    assert problem["limit"] == "agent coder: rate 3/hour"
    lease_bench.clock.now += 61
    is_problem(await post(lease_bench), 429, "limit_exceeded")
    assert len(await lease_bench.storage.leases.leases(over=True)) == 3


async def test_a_total_holds_for_a_grant_and_what_descends_from_it(
    lease_bench: LeaseBench,
) -> None:
    limit(lease_bench, "{total: 3}")
    child = lease_bench.token(jti="child", ancestors=(GRANT.jti,))
    other = lease_bench.token(jti="other-child", ancestors=(GRANT.jti,))
    for token in (lease_bench.token(), child, lease_bench.token()):
        assert (await post(lease_bench, token=token)).status_code == 200
    for token in (lease_bench.token(), child, other):
        response = await post(lease_bench, token=token)
        assert is_problem(response, 429, "limit_exceeded")["limit"].endswith(": total 3")
    assert (await post(lease_bench, token=lease_bench.token(jti="another"))).status_code == 200


async def test_what_is_refused_is_not_counted(lease_bench: LeaseBench) -> None:
    limit(lease_bench, of_agent="{rate: 1/day, concurrent: 1}")
    is_problem(await post(lease_bench, {"scope": "api.read"}), 403, "delivery_refused")
    assert (await post(lease_bench)).status_code == 200
    is_problem(await post(lease_bench), 429, "limit_exceeded")


async def test_what_cannot_be_counted_is_not_minted(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LimitsUnavailable("the server cannot count now")

    limit(lease_bench, "{total: 5}")
    monkeypatch.setattr(lease_bench.limiter.counts, "take", fail)
    response = await post(lease_bench)
    is_problem(response, 503, "limits_unavailable")
    assert response.headers["retry-after"] == "5"
    assert lease_bench.records()[-1]["decision"] == "error"
    assert not await lease_bench.storage.leases.leases(over=True)
    assert (await post(lease_bench, {"scope": "plain.use"})).status_code == 200


@pytest.mark.parametrize("part", ["storage", "trail"])
async def test_what_is_down(lease_bench: LeaseBench, part: str) -> None:
    await getattr(lease_bench, part).close()
    code = "audit_unavailable" if part == "trail" else "storage_unavailable"
    response = await post(lease_bench)
    is_problem(response, 503, code)
    assert response.headers["retry-after"] == "5"
    if part == "trail":
        is_problem(await post(lease_bench, headers={}, json={}), 503, code)


async def test_a_defect_shows_nothing(lease_bench: LeaseBench) -> None:
    lease_bench.vendor.fail["mint"] = [ZeroDivisionError("hunter2")]
    response = await post(lease_bench)
    is_problem(response, 500, "internal_error")
    assert "hunter2" not in response.text


async def test_other_methods(lease_bench: LeaseBench) -> None:
    async with lease_bench.client() as client:
        response = await client.get("/credentials")
    is_problem(response, 405, "invalid_request")
    assert response.headers["allow"] == "POST"


async def test_requests_and_leases_are_counted(lease_bench: LeaseBench) -> None:
    async with lease_bench.client() as client:
        headers = {"Authorization": f"Bearer {lease_bench.token().decode()}"}
        await client.post("/credentials", headers=headers, json={"scope": "reserving.use"})
        await client.post("/credentials", headers=headers, json={"scope": "nothing"})
        await lease_bench.leases.end_grant("grant-1")
        lease_bench.vendor.fail["revoke"] = [GONE]
        await lease_bench.reap()
        lease_bench.desk.stats.states = await lease_bench.storage.leases.counts()
        metrics = (await client.get("/metrics")).text
        await lease_bench.reap(2)
        after = (await client.get("/metrics")).text
    assert 'broker_credential_requests_total{result="issued"} 1.0' in metrics
    assert 'broker_credential_requests_total{result="insufficient_scope"} 1.0' in metrics
    assert 'broker_leases{state="revoking"} 1.0' in metrics
    assert 'broker_lease_revocations_total{result="failed"} 1.0' in metrics
    assert 'broker_lease_revocations_total{result="revoked"} 1.0' in after
    assert "nothing" not in metrics


def _call(token: bytes, disconnect: Any) -> tuple[dict[str, Any], Any]:
    body = b'{"scope": "reserving.use"}'
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body}
        await disconnect()
        return {"type": "http.disconnect"}

    headers = [
        (b"authorization", b"Bearer " + token),
        (b"content-type", b"application/json"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/credentials",
        "raw_path": b"/credentials",
        "query_string": b"",
        "headers": headers,
        "client": None,
    }
    return scope, receive


async def test_t9_a_caller_that_is_gone_before_the_answer(lease_bench: LeaseBench) -> None:
    async def at_once() -> None:
        pass

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = lease_bench.client()._transport.app  # type: ignore[attr-defined]
    scope, receive = _call(lease_bench.token(), at_once)
    await app(scope, receive, send)
    await lease_bench.reap()
    assert sent == []
    assert lease_bench.vendor.live == {}
    lease = await lease_bench.only()
    assert lease.state == "revoked"
    assert lease.created_at == NOW


@pytest.mark.parametrize("writes", [0, 1])
async def test_t9_a_caller_that_hangs_up_while_it_is_written_to(
    lease_bench: LeaseBench, writes: int
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if len(sent) == writes:
            raise OSError
        sent.append(message)

    app = lease_bench.client()._transport.app  # type: ignore[attr-defined]
    scope, receive = _call(lease_bench.token(), asyncio.Event().wait)
    await app(scope, receive, send)
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
    assert "hung up" in str([record.get("detail") for record in lease_bench.records()])


async def test_r3_a_grant_that_is_revoked_as_it_is_delivered(lease_bench: LeaseBench) -> None:
    async def send(message: Any) -> None:
        if message.get("more_body"):
            await lease_bench.revoke()

    app = lease_bench.client()._transport.app  # type: ignore[attr-defined]
    scope, receive = _call(lease_bench.token(), asyncio.Event().wait)
    await app(scope, receive, send)
    await lease_bench.reap()
    assert lease_bench.vendor.live == {}
