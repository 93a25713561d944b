"""Limits where requests pass: each way of counting must give the agent the same answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker.errors import LimitsUnavailable
from broker.limits.base import FREE, Ticket
from tests.fakes.gateway import gateway_bench
from tests.fakes.limited import limited
from tests.fakes.trail import SlowTrail
from tests.fakes.upstream import raw, reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.limits.base import Counts
    from broker.limits.quota import Exceeded, Quota
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.wire import Response


async def statuses(bench: GatewayBench, number: int, target: bytes = b"/api/x") -> list[int]:
    token = bench.token()
    calls = (bench.call(b"GET", target, token=token) for _ in range(number))
    return sorted([one.status for one in await asyncio.gather(*calls)])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.01)


async def until_free(bench: GatewayBench, token: bytes | None = None) -> Response:
    """Call until a place is free; return the response."""
    async with asyncio.timeout(10):
        while True:
            response = await bench.call(b"GET", b"/api/x", token=token)
            if response.status != 429:
                return response
            await asyncio.sleep(0.02)


def metric(bench: GatewayBench, kind: str) -> float:
    assert bench.limiter is not None
    registry = CollectorRegistry()
    registry.register(bench.limiter)
    labels = {"where": "gateway", "limit": kind}
    return registry.get_sample_value("broker_limit_refusals_total", labels) or 0.0


async def test_a_rate_lets_through_what_it_says_and_names_itself(metered: GatewayBench) -> None:
    metered.load(limited("{rate: 3/minute}"))
    assert await statuses(metered, 10) == [200] * 3 + [429] * 7
    assert len(metered.upstream.requests) == 3
    response = await metered.call(b"POST", b"/api/x", body=b"abc")
    assert (response.status, response.error) == (429, "limit_exceeded")
    assert response.one(b"content-type") == b"application/problem+json"
    assert 1 <= int(response.one(b"retry-after") or 0) <= 60
    problem = response.problem
    assert problem["limit"] == "scope api.all: rate 3/minute"
    assert problem["detail"] == "the limit is reached: scope api.all: rate 3/minute"
    assert problem["remedy"].startswith("try again in ")
    assert "scope api.all: rate 3/minute" in problem["error"]["message"]
    assert metric(metered, "rate") == 8
    records = await metered.records()
    refused = [one for one in records if one.get("status") == 429]
    assert len(refused) == 8
    assert {(one["phase"], one["decision"], one["service"]) for one in refused} == {
        ("outcome", "deny", "api")
    }
    assert {one["agent"] for one in refused} == {"tester"}
    assert {one["detail"] for one in refused} == {
        "limit_exceeded: the limit is reached: scope api.all: rate 3/minute"
    }


async def test_the_connection_lives_on_after_a_refusal(metered: GatewayBench) -> None:
    metered.load(limited("{rate: 1/minute}"))
    token = metered.token()
    async with metered.connect() as wire:
        for status in (200, 429, 429):
            body = metered.head(b"POST", b"/api/x", b"Content-Length: 2", token=token) + b"ab"
            await wire.send(body)
            assert (await wire.response()).status == status
        await wire.send(metered.head(b"GET", b"/keyed/x", token=token))
        assert (await wire.response()).status == 200


async def test_pipelined_requests_are_counted_one_by_one(metered: GatewayBench) -> None:
    metered.load(limited("{rate: 2/minute}"))
    token = metered.token()
    async with metered.connect() as wire:
        await wire.send(metered.head(b"GET", b"/api/x", token=token) * 4)
        assert [(await wire.response()).status for _ in range(4)] == [200, 200, 429, 429]


async def test_a_scope_is_counted_for_each_agent_and_an_agent_over_all_its_scopes(
    metered: GatewayBench,
) -> None:
    metered.load(limited("{rate: 2/minute}", agent="{rate: 3/minute}"))
    token = metered.token()
    seen = [(await metered.call(b"GET", b"/api/x", token=token)).status for _ in range(3)]
    assert seen == [200, 200, 429]
    other = metered.token()  # another grant of the same agent
    answers = [await metered.call(b"GET", b"/keyed/x", token=other) for _ in range(2)]
    assert [one.status for one in answers] == [200, 429]
    assert answers[-1].problem["limit"] == "agent tester: rate 3/minute"
    quiet = metered.token(agent="quiet")
    seen = [(await metered.call(b"GET", b"/api/x", token=quiet)).status for _ in range(3)]
    assert seen == [200, 200, 429]
    assert (await metered.call(b"GET", b"/keyed/x", token=quiet)).status == 200


async def test_what_policy_denies_is_not_counted(metered: GatewayBench) -> None:
    metered.load(limited("{rate: 1/minute}", agent="{rate: 1/minute}"))
    token = metered.token()
    for target in (b"/api/admin/x", b"/api/a/../b", b"/nothing/x"):
        assert (await metered.call(b"GET", target, token=token)).status in {400, 403, 404}
    assert (await metered.call(b"GET", b"/api/x", token=token)).status == 200


async def test_places_are_taken_while_requests_are_under_way(metered: GatewayBench) -> None:
    metered.load(limited(agent="{concurrent: 2}"))
    metered.upstream.answer = metered.upstream.silence
    token = metered.token()
    async with metered.connect() as one, metered.connect() as two:
        await one.send(metered.head(b"GET", b"/api/x", token=token))
        await two.send(metered.head(b"GET", b"/keyed/x", token=token))
        await metered.upstream.until_requests(2)
        response = await metered.call(b"GET", b"/api/x", token=metered.token())
        assert (response.status, response.one(b"retry-after")) == (429, b"1")
        assert response.problem["limit"] == "agent tester: concurrent 2"
        assert metric(metered, "concurrent") == 1
    metered.upstream.answer = reply()
    assert (await until_free(metered)).status == 200
    assert await statuses(metered, 1) == [200]


async def test_a_place_comes_back_however_a_request_ends(metered: GatewayBench) -> None:
    metered.load(limited("{concurrent: 1}"))
    upstream, token = metered.upstream, metered.token()

    async def free() -> None:
        upstream.answer = reply()
        assert (await until_free(metered, token)).status == 200
        # What it gave back itself is on its way where others are told of it.
        await until(lambda: not getattr(metered.counts, "_tasks", None))

    upstream.answer = raw(b"no HTTP at all\r\n\r\n", close=True)
    assert (await metered.call(b"GET", b"/api/x", token=token)).status == 502
    await free()
    upstream.answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close=True)
    async with metered.connect() as wire:
        await wire.send(metered.head(b"GET", b"/api/x", token=token))
        assert (await wire.head()).status in {200, 502}  # the latter if it was not begun
    await free()
    upstream.answer = upstream.silence
    async with metered.connect() as wire:  # hangs up
        await wire.send(metered.head(b"GET", b"/api/x", token=token))
        await upstream.until_requests(len(upstream.requests) + 1)
    await free()
    metered.secrets.values.clear()  # the provider has no credential, once the known one is over
    metered.load(limited("{concurrent: 1}"))
    assert (await metered.call(b"GET", b"/api/x", token=token)).status in {502, 503}
    metered.secrets.values["env:KEY"] = b"sk_live_canary_7f3a9c"
    await free()
    upstream.answer = upstream.silence
    async with metered.connect() as wire:  # cut by a revocation
        await wire.send(metered.head(b"GET", b"/api/x", token=token))
        await upstream.until_requests(len(upstream.requests) + 1)
        metered.server.cut(lambda _: True)
        assert (await wire.response()).status == 401
    await free()
    async with metered.connect() as wire:  # half a body
        head = metered.head(b"POST", b"/api/x", b"Content-Length: 9", token=token)
        await wire.send(head + b"abc")
        await asyncio.sleep(0.05)
    await free()
    async with metered.connect() as wire:  # a body that is no body
        head = metered.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked", token=token)
        await wire.send(head + b"zz\r\n")
        assert (await wire.response()).status == 400
    await free()


async def test_a_total_is_the_grants_and_its_descendants(metered: GatewayBench) -> None:
    metered.load(limited("{total: 4}"))
    root = metered.token(jti="root-1")
    children = [metered.token(ancestors=("root-1",)) for _ in range(3)]
    for token in (root, *children):
        assert (await metered.call(b"GET", b"/api/x", token=token)).status == 200
    for token in (root, *children, metered.token(ancestors=("root-1",))):
        response = await metered.call(b"GET", b"/api/x", token=token)
        assert response.status == 429
        assert response.problem["limit"] == "scope api.all: total 4"
        assert "another task token" in response.problem["remedy"]
        assert 1 <= int(response.one(b"retry-after") or 0) <= 900
    assert (await metered.call(b"GET", b"/keyed/x", token=root)).status == 200
    assert (await metered.call(b"GET", b"/api/x", token=metered.token())).status == 200
    assert metric(metered, "total") == 5


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_is_too_large_is_not_sent(
    metered: GatewayBench, *, chunked: bool
) -> None:
    metered.load(limited("{request_bytes: 1KiB}", agent="{request_bytes: 1MiB}"))
    token = metered.token()
    fits = await metered.call(b"POST", b"/api/x", body=b"a" * 1024, token=token)
    assert fits.status == 200
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1025"
    body = b"401\r\n" + b"a" * 1025 + b"\r\n0\r\n\r\n" if chunked else b""
    async with metered.connect() as wire:
        await wire.send(metered.head(b"POST", b"/api/x", framing, token=token) + body)
        response = await wire.response()
    assert (response.status, response.error) == (413, "body_too_large")
    assert response.problem["limit"] == "scope api.all: request_bytes 1KiB"
    assert metric(metered, "request_bytes") == 1
    await asyncio.sleep(0.05)
    assert len(metered.upstream.requests) == 1
    refused = (await metered.records())[-1]
    assert (refused["phase"], refused["status"]) == ("outcome", 413)
    assert "scope api.all: request_bytes 1KiB" in refused["detail"]


async def test_a_body_that_turns_out_too_large_is_cut(metered: GatewayBench) -> None:
    metered.load(limited("{request_bytes: 1KiB}"))
    async with metered.connect() as wire:
        await wire.send(metered.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked"))
        await wire.send(b"400\r\n" + b"a" * 1024 + b"\r\n")
        await until(lambda: b"aaaa" in metered.upstream.bytes_received)
        await wire.send(b"1\r\nb\r\n")
        response = await wire.response()
    assert (response.status, response.error) == (413, "body_too_large")
    await metered.upstream.until_aborted()
    assert not metered.upstream.requests
    outcome = (await metered.records())[-1]
    assert (outcome["decision"], outcome["status"]) == ("error", 413)
    assert outcome["detail"].startswith("body_too_large: the limit is scope api.all")


async def test_an_announced_response_that_is_too_large_is_refused(metered: GatewayBench) -> None:
    metered.load(limited(agent="{response_bytes: 10}"))
    metered.upstream.answer = reply(b"0123456789")
    assert (await metered.call(b"GET", b"/api/x")).body == b"0123456789"
    metered.upstream.answer = reply(b"0123456789a")
    response = await metered.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "response_too_large")
    assert response.problem["limit"] == "agent tester: response_bytes 10B"
    metered.upstream.answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n")
    head = await metered.call(b"HEAD", b"/api/x")
    assert (head.status, head.one(b"content-length")) == (200, b"11")
    assert metric(metered, "response_bytes") == 1


async def test_a_stream_that_turns_out_too_large_is_cut(metered: GatewayBench) -> None:
    metered.load(limited("{response_bytes: 10}"))
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n0123456\n\r\n"

    async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"3\r\n89a\r\n0\r\n\r\n")

    metered.upstream.answer = answer
    async with metered.connect() as wire:
        await wire.send(metered.head(b"GET", b"/api/x"))
        assert (await wire.head()).status == 200
        assert await wire.rest() == b"8\r\n0123456\n\r\n"
    outcome = (await metered.records())[-1]
    assert (outcome["decision"], outcome["status"], outcome["bytes_out"]) == ("error", 200, 8)
    assert "response_too_large: the limit is scope api.all: response_bytes 10B" in outcome["detail"]


async def test_a_held_response_that_is_too_large_is_refused(counts: Counts, tmp_path: Path) -> None:
    trail = SlowTrail(prompt=True)
    async with gateway_bench(tmp_path / "audit", counts=counts, trail=trail) as bench:
        bench.load(limited("{response_bytes: 10}"))
        token = bench.token()
        assert (await bench.call(b"GET", b"/api/x", token=token)).status == 200
        trail.prompt = False
        bench.upstream.answer = raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n"
        )
        response = await bench.call(b"GET", b"/api/x", token=token)
        assert (response.status, response.error) == (502, "response_too_large")


async def test_a_websocket_takes_a_place_until_it_is_closed(metered: GatewayBench) -> None:
    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        metered.upstream.port = server.sockets[0].getsockname()[1]
        text = limited("{concurrent: 1, response_bytes: 1KiB}")
        metered.load(text.replace("{service: api,", "{service: api, websocket: true,", 1))
        token = metered.token().decode()

        def socket() -> connect:
            return connect(
                f"ws://127.0.0.1:{metered.port}/api/realtime",
                additional_headers={"Authorization": f"Bearer {token}"},
                proxy=None,
            )

        async with socket() as first:
            await first.send("hello")
            assert await first.recv() == "hello"
            with pytest.raises(InvalidStatus) as refusal:
                await socket().__aenter__()
            assert refusal.value.response.status_code == 429
            await first.send("x" * 2000)
            with pytest.raises(ConnectionClosed):
                await first.recv()
        async with asyncio.timeout(10):
            while True:
                try:
                    async with socket() as again:
                        await again.send("free")
                        assert await again.recv() == "free"
                        break
                except InvalidStatus:
                    await asyncio.sleep(0.02)


async def test_limits_that_are_new_count_from_the_next_request(metered: GatewayBench) -> None:
    token = metered.token()
    async with metered.connect() as wire:
        for policy, seen in ((None, 200), ("{rate: 1/minute}", 200), (None, 429), (None, 429)):
            if policy:
                metered.load(limited(policy))
            await wire.send(metered.head(b"GET", b"/api/x", token=token))
            assert (await wire.response()).status == seen
        metered.load_again()
        await wire.send(metered.head(b"GET", b"/api/x", token=token))
        assert (await wire.response()).status == 200


class Failing:
    """Counts as a test wants (`broker.limits.base.Counts`)."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked = 0
        self.given_back: list[Ticket] = []
        self.answer = asyncio.Event()

    def take_now(self, quota: Quota) -> Ticket | Exceeded | None:
        return None if quota.counted else FREE

    async def take(self, quota: Quota) -> Ticket | Exceeded:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await self.answer.wait()
        return Ticket(quota.places, "ticket")

    def give_back(self, ticket: Ticket) -> None:
        self.given_back.append(ticket)

    async def keep(self) -> None: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (LimitsUnavailable("the server cannot count"), "limits_unavailable", 503),
        (RuntimeError("canary-text"), "internal_error", 500),
    ],
)
async def test_what_cannot_be_counted_is_not_sent(
    tmp_path: Path, error: Exception, code: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_bench(tmp_path / "audit", counts=Failing(error)) as bench:
        bench.load(limited("{concurrent: 1}"))
        response = await bench.call(b"POST", b"/api/x", body=b"a")
        assert (response.status, response.error) == (status, code)
        assert (response.one(b"retry-after") == b"1") == (status == 503)
        assert (await bench.call(b"GET", b"/keyed/x")).status == 200
        assert len(bench.upstream.requests) == 1
        assert bench.limiter is not None
        assert ('limit="unavailable"' in _exposed(bench)) == (status == 503)
        refused = (await bench.records())[0]
        assert (refused["phase"], refused["decision"]) == ("outcome", "error")
        assert refused["detail"].startswith(code)
    assert "canary-text" not in caplog.text


async def test_a_defect_after_the_count_costs_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("canary-text")

    counts = Failing(None)
    counts.answer.set()
    async with gateway_bench(tmp_path / "audit", counts=counts) as bench:
        bench.load(limited("{concurrent: 1}"))
        with monkeypatch.context() as broken:
            broken.setattr("broker.gateway.record.Recorder.intend", fail)
            response = await bench.call(b"GET", b"/api/x")
            assert (response.status, response.error) == (500, "internal_error")
        assert len(counts.given_back) == 1
        assert (await bench.call(b"GET", b"/api/x")).status == 200
    assert "canary-text" not in caplog.text


async def test_without_anything_that_counts_limits_let_nothing_through(
    gateway: GatewayBench,
) -> None:
    gateway.load(limited("{total: 9}", other="{request_bytes: 1KiB}"))
    assert (await gateway.call(b"GET", b"/api/x")).error == "limits_unavailable"
    assert (await gateway.call(b"GET", b"/keyed/x")).status == 200  # nothing to count


async def test_an_agent_that_hangs_up_while_it_is_counted_is_on_record(tmp_path: Path) -> None:
    counts = Failing(None)
    async with gateway_bench(tmp_path / "audit", counts=counts) as bench:
        bench.load(limited("{concurrent: 1}"))
        async with bench.connect() as wire:
            await wire.send(bench.head(b"POST", b"/api/x", b"Content-Length: 3") + b"abc")
            await until(lambda: bool(counts.asked))
        await asyncio.sleep(0.05)
        counts.answer.set()
        await until(lambda: bool(counts.given_back))
        assert not bench.upstream.requests
        (record,) = await bench.records()
    assert record["detail"].startswith("request_timeout: the agent closed the connection")


async def test_a_body_waits_while_the_request_is_counted(tmp_path: Path) -> None:
    counts = Failing(None)
    async with gateway_bench(tmp_path / "audit", counts=counts) as bench:
        bench.load(limited("{concurrent: 1}"))
        async with bench.connect() as wire:
            size = 8 << 20
            await wire.send(bench.head(b"POST", b"/api/x", b"Content-Length: %d" % size))
            taken = await wire.send_until_stuck(b"x" * 65536, size)
            assert taken < size
            counts.answer.set()
            await wire.send(b"x" * (size - taken))
            assert (await wire.response()).status == 200
        assert len(bench.upstream.last.body) == size
        assert len(counts.given_back) == 1


async def test_a_grant_that_is_revoked_while_it_is_counted_gets_nowhere(tmp_path: Path) -> None:
    counts = Failing(None)
    async with gateway_bench(tmp_path / "audit", counts=counts) as bench:
        bench.load(limited("{concurrent: 1}"))
        async with bench.connect() as wire:
            await wire.send(bench.head(b"GET", b"/api/x"))
            await until(lambda: bool(counts.asked))
            bench.server.cut(lambda _: True)
            assert (await wire.response()).status == 401
        counts.answer.set()
        await asyncio.sleep(0.05)
        assert not bench.upstream.requests
        assert len(counts.given_back) == 1
        (record,) = await bench.records()
    assert record["detail"].startswith("token_invalid: revoked while")


def _exposed(bench: GatewayBench) -> str:
    assert bench.limiter is not None
    registry = CollectorRegistry()
    registry.register(bench.limiter)
    return generate_latest(registry).decode()
