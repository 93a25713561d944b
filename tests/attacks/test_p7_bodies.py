"""P7 and P8: the body and the query that policy judged are what is sent, or nothing is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import pytest

from broker.gateway.limits import GatewayLimits
from tests.fakes.gateway import AGENT, gateway_bench, service
from tests.fakes.limited import opened_counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.gateway import GatewayBench
    from tests.fakes.wire import Response

SECRET: Final = "4111-1111-1111-1111"
LIMIT: Final = 256

POLICY: Final = f"""
identity_sources: {{laptop: {{type: local}}}}
services:
{service("api", '{type: bearer, secret: "env:KEY"}')}
scopes:
  refund:
    service: api
    allow: ["POST /v1/refunds", "GET /v1/refunds/*", "DELETE /v1/refunds/*"]
    body:
      json:
        amount: {{max: 5000}}
        charge: {{glob: "ch_*"}}
        note: {{any: true}}
      max_bytes: {LIMIT}
  formed:
    service: api
    allow: ["POST /v1/forms"]
    body: {{form: {{amount: {{max: 5000}}, "*": {{any: true}}}}}}
    query: {{page: {{any: true}}, "*": {{any: true}}}}
  searched:
    service: api
    allow: ["GET /v1/search"]
    query: {{q: {{glob: "repo:acme/*"}}, limit: {{max: 100}}}}
  streamed: {{service: api, allow: ["POST /v1/streams"]}}
agents:
  {AGENT}:
    trust: [{{source: laptop, claims: {{sub: {AGENT}}}}}]
    scopes: [refund, formed, searched, streamed]
"""
ALL: Final = ("refund", "formed", "searched", "streamed")
JSON: Final = b"Content-Type: application/json"
FORM: Final = b"Content-Type: application/x-www-form-urlencoded"
GOOD: Final = b'{"amount": 50, "charge": "ch_1"}'


@pytest.fixture
async def judged(tmp_path: Path) -> AsyncIterator[GatewayBench]:
    async with gateway_bench(tmp_path / "audit", text=POLICY) as bench:
        yield bench


async def post(
    bench: GatewayBench, body: bytes, *lines: bytes, target: bytes = b"/api/v1/refunds"
) -> Response:
    return await bench.call(b"POST", target, *lines, body=body, token=bench.token(*ALL))


async def send(bench: GatewayBench, framing: bytes, raw: bytes, *lines: bytes) -> Response:
    head = bench.head(b"POST", b"/api/v1/refunds", JSON, framing, *lines, token=bench.token(*ALL))
    async with bench.connect() as connection:
        await connection.send(head + raw)
        return await connection.response(b"POST")


async def test_p7_the_bytes_judged_are_the_bytes_sent(judged: GatewayBench) -> None:
    spelt = b'{ "charge":"ch_\\u0031" ,\t"amount" : 5e1,"note":{"x":[1]} }\n'
    for body in (GOOD, spelt, b" " + GOOD):
        assert (await post(judged, body, JSON)).status == 200
        received = judged.upstream.last
        assert received.body == body
        assert received.all(b"content-length") == [b"%d" % len(body)]
        assert received.all(b"content-type") == [b"application/json"]


async def test_p7_chunks_are_put_together_and_sent_with_their_length(judged: GatewayBench) -> None:
    raw = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\nX-T: amount=9999\r\n\r\n"
    response = await send(judged, b"Transfer-Encoding: chunked", raw, b"Trailer: X-T")
    assert response.status == 200
    received = judged.upstream.last
    assert received.body == GOOD
    assert received.all(b"content-length") == [b"%d" % len(GOOD)]
    assert not received.all(b"transfer-encoding")
    assert not received.all(b"trailer")
    assert b"9999" not in judged.upstream.bytes_received


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"amount": 5001, "charge": "ch_1"}', "'amount'"),
        (b'{"amount": -1, "charge": "ch_1"}', "'amount'"),
        (b'{"amount": "50", "charge": "ch_1"}', "'amount'"),
        (b'{"amount": 50, "charge": "' + SECRET.encode() + b'"}', "'charge'"),
        (b'{"amount": 50}', "'charge' is missing"),
        (b'{"amount": 50, "charge": "ch_1", "' + SECRET.encode() + b'": 1}', "may hold"),
        (b'{"amount": 50, "charge": "ch_1", "Amount": 9999}', "may hold"),
        (b'{"amount": 50, "charge": "ch_1", "amount": 9999}', "twice"),
        (b'{"amount": 50, "charge": "ch_1", "\\u0061mount": 9999}', "twice"),
        (b'{"amount": 50, "charge": "ch_1"}{}', "not JSON with one reading"),
        (b'{"amount": NaN, "charge": "ch_1"}', "not JSON with one reading"),
        (b'{"amount": 1e999, "charge": "ch_1"}', "not JSON with one reading"),
        (b'{"amount": 1e-99999999999999999999, "charge": "ch_1"}', "not JSON with one reading"),
        (b"[" * 200, "not JSON with one reading"),
        (b"amount=50&charge=ch_1", "not JSON with one reading"),
        (b"\xef\xbb\xbf" + GOOD, "not JSON with one reading"),
        (GOOD.decode().encode("utf-16"), "not JSON with one reading"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_p7_what_policy_does_not_allow_goes_nowhere(
    judged: GatewayBench, body: bytes, field: str
) -> None:
    response = await post(judged, body, JSON)
    assert (response.status, response.error) == (403, "policy_denied")
    assert field in response.problem["detail"]
    assert not judged.upstream.requests
    (record,) = await judged.records()
    assert record["decision"] == "deny"
    assert field in record["detail"]
    assert SECRET not in json.dumps(record)
    assert SECRET.encode() not in response.body


async def test_p7_a_defect_in_judging_is_answered_and_on_record(
    judged: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr("broker.policy.body.loads", broken)
    async with asyncio.timeout(10):
        response = await post(judged, GOOD, JSON)
    assert (response.status, response.error) == (500, "internal_error")
    assert not judged.upstream.requests
    (record,) = await judged.records()
    assert record["detail"].startswith("internal_error")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Content-Type: text/plain"],
        [FORM],
        [JSON + b"; charset=utf-16"],
        [JSON + b"; charset=utf-8; charset=utf-7"],
        [JSON, JSON],
        [JSON, FORM],
        [JSON, b"content_type: application/xml"],
        [b"Content_Type: application/json"],
        [JSON, b"Content-Encoding: gzip"],
        [JSON, b"Content-Encoding: identity"],
        [JSON, b"content_encoding: gzip"],
        [JSON, b"Connection: Content-Type"],
        [JSON, b"Connection: keep-alive, content-type"],
    ],
    ids=repr,
)
async def test_p7_there_is_one_way_to_read_the_body(
    judged: GatewayBench, lines: list[bytes]
) -> None:
    response = await post(judged, GOOD, *lines)
    assert (response.status, response.error) == (403, "policy_denied")
    assert not judged.upstream.requests


async def test_p7_size_plus_one_is_refused(judged: GatewayBench) -> None:
    def padded(size: int) -> bytes:
        return GOOD[:-1] + b" " * (size - len(GOOD)) + b"}"

    assert (await post(judged, padded(LIMIT), JSON)).status == 200
    response = await post(judged, padded(LIMIT + 1), JSON)
    assert (response.status, response.error) == (413, "body_too_large")
    assert str(LIMIT) in response.problem["detail"]
    raw = b"%x\r\n%b\r\n" % (LIMIT, padded(LIMIT))
    for rest, status in ((b"0\r\n\r\n", 200), (b"1\r\n \r\n0\r\n\r\n", 413)):
        assert (await send(judged, b"Transfer-Encoding: chunked", raw + rest)).status == status
    assert len(judged.upstream.requests) == 2


async def test_p7_a_length_over_the_cap_is_refused_before_the_body(judged: GatewayBench) -> None:
    expecting = b"Expect: 100-continue"
    response = await send(judged, b"Content-Length: 1000000", b"", expecting)
    assert response.status == 413
    async with judged.connect() as connection:
        head = judged.head(
            b"POST", b"/api/v1/refunds", JSON, b"Content-Length: %d" % len(GOOD), expecting,
            token=judged.token(*ALL),
        )  # fmt: skip
        await connection.send(head)
        assert (await connection.head()).status == 100
        assert not judged.upstream.connections
        await connection.send(GOOD)
        assert (await connection.response(b"POST")).status == 200
    assert not judged.upstream.last.all(b"expect")


async def test_p7_nothing_is_sent_or_intended_before_the_body_is_whole(
    judged: GatewayBench,
) -> None:
    async with judged.connect() as connection:
        head = judged.head(
            b"POST", b"/api/v1/refunds", JSON, b"Content-Length: 32", token=judged.token(*ALL)
        )
        await connection.send(head + GOOD[:20])
        await asyncio.sleep(0.1)
        assert not judged.upstream.connections
    await asyncio.sleep(0.05)
    assert not judged.upstream.connections
    assert await judged.records() == []


async def test_p7_each_of_two_bodies_under_one_head_is_judged(judged: GatewayBench) -> None:
    bad = b'{"amount":9999,"charge":"ch_1"}' + b" "
    assert len(bad) == len(GOOD)
    head = judged.head(
        b"POST", b"/api/v1/refunds", JSON, b"Content-Length: %d" % len(GOOD),
        token=judged.token(*ALL),
    )  # fmt: skip
    async with judged.connect() as connection:
        await connection.send((head + GOOD) + (head + bad) + (head + GOOD) + (head + bad))
        statuses = [(await connection.response(b"POST")).status for _ in range(4)]
    assert statuses == [200, 403, 200, 403]
    assert [request.body for request in judged.upstream.requests] == [GOOD, GOOD]


async def test_p7_no_body_is_for_safe_methods_alone(judged: GatewayBench) -> None:
    token = judged.token(*ALL)
    assert (await judged.call(b"GET", b"/api/v1/refunds/1", token=token)).status == 200
    for method, target in ((b"DELETE", b"/api/v1/refunds/1"), (b"POST", b"/api/v1/refunds")):
        response = await judged.call(method, target, b"Content-Length: 0", token=token)
        assert response.status == 403
        assert "has no body" in response.problem["detail"]
    response = await judged.call(
        b"GET", b"/api/v1/refunds/1", JSON, body=b'{"amount": 9999}', token=token
    )
    assert response.status == 403
    assert (await send(judged, b"Transfer-Encoding: chunked", b"0\r\n\r\n")).status == 403
    assert len(judged.upstream.requests) == 1


async def test_p7_what_the_body_may_not_say_the_query_may_not_either(
    judged: GatewayBench,
) -> None:
    """Some frameworks read a parameter from either place."""
    response = await post(judged, GOOD, JSON, target=b"/api/v1/refunds?amount=9999")
    assert response.status == 403
    form = b"amount=50&x=1"
    forms = b"/api/v1/forms"
    assert (await post(judged, form, FORM, target=forms + b"?page=1&y=2")).status == 200
    for query in (b"amount=9999", b"Amount=9999", b"amount[]=9999", b"%61mount=1"):
        assert (await post(judged, form, FORM, target=forms + b"?" + query)).status == 403
    for body in (b"amount=5001", b"amount=1&amount=2", b"amount=1&AMOUNT=2", b"x=1", b"amount=1;a"):
        assert (await post(judged, body, FORM, target=forms)).status == 403
    assert len(judged.upstream.requests) == 1


async def test_p7_without_a_rule_bodies_flow_as_they_come(judged: GatewayBench) -> None:
    head = judged.head(
        b"POST", b"/api/v1/streams", b"Transfer-Encoding: chunked", token=judged.token(*ALL)
    )
    async with judged.connect() as connection:
        await connection.send(head + b"3\r\nabc\r\n")
        async with asyncio.timeout(5):
            while b"abc" not in judged.upstream.bytes_received:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.005)
        await connection.send(b"0\r\n\r\n")
        assert (await connection.response(b"POST")).status == 200
    assert judged.upstream.last.all(b"transfer-encoding") == [b"chunked"]


async def test_p7_a_grant_revoked_while_its_body_comes_is_refused(judged: GatewayBench) -> None:
    async with judged.connect() as connection:
        head = judged.head(
            *(b"POST", b"/api/v1/refunds", JSON, b"Content-Length: 32", b"Expect: 100-continue"),
            token=judged.token(*ALL),
        )
        await connection.send(head)
        assert (await connection.head()).status == 100
        await connection.send(GOOD[:20])
        judged.server.cut(lambda grant: grant.agent == AGENT)
        response = await connection.response(b"POST")
    assert (response.status, response.error) == (401, "token_invalid")
    assert not judged.upstream.connections
    (record,) = await judged.records()
    assert "revoked" in record["detail"]


async def test_p7_a_judged_request_is_one_use_of_its_grant(judged: GatewayBench) -> None:
    token = judged.token(*ALL, jti="mine")
    for _ in range(2):
        response = await judged.call(b"POST", b"/api/v1/refunds", JSON, body=GOOD, token=token)
        assert response.status == 200
    assert {jti: use.requests for jti, use in judged.grants.take_uses().items()} == {"mine": 2}


async def test_p7_a_policy_changed_while_the_body_comes_counts(judged: GatewayBench) -> None:
    async with judged.connect() as connection:
        head = judged.head(
            b"POST", b"/api/v1/refunds", JSON, b"Content-Length: %d" % len(GOOD),
            token=judged.token(*ALL),
        )  # fmt: skip
        await connection.send(head + GOOD[:20])
        await asyncio.sleep(0.05)
        judged.load(POLICY.replace("max: 5000", "max: 5"))
        await connection.send(GOOD[20:])
        assert (await connection.response(b"POST")).status == 403
    assert not judged.upstream.requests


async def test_p7_bodies_that_wait_are_bounded_all_together(tmp_path: Path) -> None:
    limits = GatewayLimits(whole_bodies_bytes=4 * 100, body_timeout=0.3)
    async with gateway_bench(tmp_path / "audit", text=POLICY, limits=limits) as bench:
        head = bench.head(
            b"POST", b"/api/v1/refunds", JSON, b"Content-Length: 200", token=bench.token(*ALL)
        )
        async with bench.connect() as one, bench.connect() as two, bench.connect() as three:
            for connection in (one, two):
                await connection.send(head + b" " * 150)
            await asyncio.sleep(0.05)
            await three.send(head + b" " * 150)
            assert (await three.response(b"POST")).error == "overloaded"
            for connection in (one, two):
                response = await connection.response(b"POST")
                assert (response.status, response.error) == (408, "request_timeout")
        token = bench.token(*ALL)
        response = await bench.call(b"POST", b"/api/v1/refunds", JSON, body=GOOD, token=token)
        assert response.status == 200  # and what waited is given back
        assert len(bench.upstream.requests) == 1


@pytest.mark.parametrize(
    "query",
    [
        b"q=repo:acme/x&limit=1&q=repo:evil/x",
        b"q=repo:evil/x&limit=1&q=repo:acme/x",
        b"q=repo:acme/x&limit=1&%71=repo:evil/x",
        b"q=repo:acme/x&limit=1&Q=repo:evil/x",
        b"q=repo:acme/x&limit=1&q[]=repo:evil/x",
        b"q=repo:acme/x&limit=1;q=repo:evil/x",
        b"q=repo:acme/x&limit=101",
        b"q=repo:acme/x&limit=1e1",
        b"q=repo:acme/x",
        b"",
    ],
)
async def test_p8_a_parameter_is_there_once_or_the_request_is_denied(
    judged: GatewayBench, query: bytes
) -> None:
    token = judged.token(*ALL)
    response = await judged.call(b"GET", b"/api/v1/search?" + query, token=token)
    assert (response.status, response.error) == (403, "policy_denied")
    assert not judged.upstream.requests
    (record,) = await judged.records()
    assert record["decision"] == "deny"
    assert "evil" not in json.dumps(record)


async def test_p8_the_query_judged_is_the_query_sent(judged: GatewayBench) -> None:
    for query in (
        b"q=repo:acme/x&limit=100",
        b"limit=1&&q=repo%3Aacme%2Fx",
        b"%71=repo:acme/&limit=0",
    ):
        response = await judged.call(b"GET", b"/api/v1/search?" + query, token=judged.token(*ALL))
        assert response.status == 200
        assert judged.upstream.last.target == b"/v1/search?" + query


@pytest.mark.parametrize("way", ["memory", "local"])
async def test_p7_a_judged_request_counts_against_its_limits(tmp_path: Path, way: str) -> None:
    limited = POLICY.replace("  refund:\n", "  refund:\n    limits: {rate: 2/hour}\n")
    assert limited != POLICY
    async with (
        opened_counts(way, tmp_path, "") as counts,
        gateway_bench(tmp_path / "audit", text=limited, counts=counts) as bench,
    ):
        bad = await post(bench, b'{"amount": 9999, "charge": "ch_1"}', JSON)
        assert bad.status == 403  # which is not counted, for it was not allowed
        statuses = [(await post(bench, GOOD, JSON)).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert [request.body for request in bench.upstream.requests] == [GOOD, GOOD]
