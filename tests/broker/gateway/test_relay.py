from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from broker.audit import trail as module
from broker.errors import AuditUnavailable
from broker.gateway.limits import GatewayLimits
from providers.base import ProviderError, Secret
from tests.broker.audit.test_trail import until
from tests.broker.audit.trails import record
from tests.components.process import free_port
from tests.fakes.gateway import KEY, gateway_bench, open_trail, policy_text
from tests.fakes.trail import SlowTrail
from tests.fakes.upstream import Received, raw, recording_upstream, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.tls import TestAuthority
    from tests.fakes.gateway import GatewayBench


@pytest.fixture
def trail() -> SlowTrail:
    return SlowTrail()


@pytest.fixture
async def slow_trail(trail: SlowTrail, tmp_path: Path) -> AsyncIterator[GatewayBench]:
    """A gateway that waits for `trail`, its credential for api at hand for one task token."""
    trail.prompt = True
    async with gateway_bench(tmp_path, trail=trail) as bench:
        token = bench.token()
        bench.token = lambda *_, **__: token  # type: ignore[method-assign]
        await bench.call(b"GET", b"/api/warm")
        trail.prompt = False
        bench.upstream.requests.clear()
        trail.records.clear()
        yield bench


async def nothing_sent(bench: GatewayBench) -> None:
    await asyncio.sleep(0.05)
    assert not bench.upstream.requests


async def test_a_request_goes_through_with_the_credential(gateway: GatewayBench) -> None:
    gateway.upstream.answer = reply(b'{"id": 1}', "200 OK", b"X-Request-Id: r1")
    response = await gateway.call(b"GET", b"/api/v1/charges?limit=3", b"Accept: */*")
    assert (response.status, response.body) == (200, b'{"id": 1}')
    assert response.one(b"x-request-id") == b"r1"
    received = gateway.upstream.last
    assert received.line == b"GET /v1/charges?limit=3 HTTP/1.1"
    assert received.all(b"authorization") == [b"Bearer " + KEY.encode()]
    assert received.all(b"host") == [b"127.0.0.1:%d" % gateway.upstream.port]
    intent, outcome = await gateway.records()
    assert (intent["phase"], outcome["phase"]) == ("intent", "outcome")
    assert intent["operation"] == outcome["operation"]
    assert (outcome["status"], outcome["bytes_out"]) == (200, 9)


async def test_the_base_path_comes_first(gateway: GatewayBench) -> None:
    await gateway.call(b"GET", b"/based/x?y")
    assert gateway.upstream.last.target == b"/base/v2/x?y"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
async def test_what_may_change_something_waits_for_its_record(
    slow_trail: GatewayBench, trail: SlowTrail, method: bytes
) -> None:
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(method, b"/api/x", b"Content-Length: 2") + b"ab")
        await nothing_sent(slow_trail)
        assert [record.phase for record in trail.records] == ["intent"]
        trail.settle()
        assert (await wire.response()).status == 200
    assert slow_trail.upstream.last.body == b"ab"
    assert [record.phase for record in trail.records] == ["intent", "outcome"]


async def test_what_is_safe_is_sent_and_its_response_held(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"GET", b"/api/x"))
        await slow_trail.upstream.until_requests(1)
        reading = asyncio.ensure_future(wire.response())
        await asyncio.sleep(0.05)
        assert not reading.done()
        assert not trail.outcomes
        trail.settle()
        assert (await reading).body == b"ok"
    assert len(trail.outcomes) == 1


async def test_without_a_credential_at_hand_even_what_is_safe_waits(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    slow_trail.secrets.reads.clear()
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"GET", b"/keyed/x"))
        await nothing_sent(slow_trail)
        assert not slow_trail.secrets.reads
        trail.settle()
        assert (await wire.response()).status == 200


async def test_a_long_response_is_held_in_little_memory(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    size = 40_000_000
    sent = 0

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()

    slow_trail.upstream.answer = answer
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"GET", b"/api/x"))
        await asyncio.sleep(0.2)
        assert sent < size // 2
        trail.settle()
        assert len((await wire.response()).body) == size


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_full_disk_refuses_before_anything_happens(
    slow_trail: GatewayBench, trail: SlowTrail, method: bytes
) -> None:
    trail.full = True
    response = await slow_trail.call(method, b"/api/x")
    assert (response.status, response.error) == (503, "audit_unavailable")
    await nothing_sent(slow_trail)


async def test_a_record_that_fails_stops_what_may_change_something(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"POST", b"/api/x"))
        await asyncio.sleep(0.05)
        trail.settle(AuditUnavailable("disk"))
        assert (await wire.response()).error == "audit_unavailable"
    await nothing_sent(slow_trail)
    assert trail.outcomes[0].decision == "error"


async def test_a_record_that_fails_keeps_the_response_back(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    slow_trail.upstream.answer = reply(b"nobody may see this")
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"GET", b"/api/x"))
        await slow_trail.upstream.until_requests(1)
        await asyncio.sleep(0.05)
        trail.settle(AuditUnavailable("disk"))
        response = await wire.response()
    assert response.error == "audit_unavailable"
    assert b"nobody" not in response.body


async def test_an_outcome_that_cannot_be_recorded_does_not_stop_the_answer(
    slow_trail: GatewayBench, trail: SlowTrail
) -> None:
    async with slow_trail.connect() as wire:
        await wire.send(slow_trail.head(b"POST", b"/api/x"))
        await asyncio.sleep(0.02)
        trail.full = True
        trail.settle()
        assert (await wire.response()).status == 200


@pytest.mark.parametrize(
    ("wire", "status", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            200,
            b"abc",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, b""),
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            200,
            b"a",
        ),
    ],
)
async def test_responses_of_all_shapes(
    gateway: GatewayBench, wire: bytes, status: int, body: bytes
) -> None:
    gateway.upstream.answer = raw(wire)
    for _ in range(2):
        response = await gateway.call(b"GET", b"/api/x")
        assert (response.status, response.body) == (status, body)
    assert gateway.upstream.connections == 1


async def test_a_response_until_close_arrives_in_chunks(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True)
    response = await gateway.call(b"GET", b"/api/x")
    assert response.one(b"transfer-encoding") == b"chunked"
    assert response.body == b"until the end"


async def test_head_requests(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    async with gateway.connect() as wire:
        for _ in range(3):
            await wire.send(gateway.head(b"HEAD", b"/api/x"))
            assert (await wire.response(b"HEAD")).one(b"content-length") == b"500"
    assert gateway.upstream.connections == 1


@pytest.mark.parametrize("size", [0, 1, 100_000])
async def test_bodies_are_passed_on_as_they_are_framed(gateway: GatewayBench, size: int) -> None:
    body = b"x" * size
    await gateway.call(b"POST", b"/api/x", body=body)
    assert gateway.upstream.last.body == body
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked"))
        for start in range(0, size, 7000):
            part = body[start : start + 7000]
            await wire.send(b"%x;ext=1\r\n%b\r\n" % (len(part), part))
        await wire.send(b"0\r\nX-Trailer: dropped\r\n\r\n")
        assert (await wire.response()).status == 200
    assert gateway.upstream.last.body == body
    assert gateway.upstream.last.all(b"transfer-encoding") == [b"chunked"]
    assert b"dropped" not in gateway.upstream.bytes_received
    assert (await gateway.records())[-1]["bytes_in"] == size


async def test_a_chunked_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with gateway_bench(tmp_path / "audit", limits=GatewayLimits(body_bytes=10)) as bench:
        async with bench.connect() as wire:
            await wire.send(bench.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked"))
            await wire.send(b"6\r\n123456\r\n6\r\n123456\r\n")
            assert (await wire.response()).error == "body_too_large"
            assert await wire.closed()
        assert not bench.upstream.requests


async def test_100_continue_comes_after_the_decision(gateway: GatewayBench) -> None:
    async with gateway.connect() as wire:
        lines = (b"Expect: 100-continue", b"Content-Length: 2")
        await wire.send(gateway.head(b"POST", b"/api/x", *lines))
        assert (await wire.head()).status == 100
        await wire.send(b"ab")
        assert (await wire.response()).status == 200
        assert not gateway.upstream.last.all(b"expect")
        await wire.send(gateway.head(b"POST", b"/api/admin/x", *lines))
        refusal = await wire.response()
        assert refusal.status == 403
        assert refusal.one(b"connection") == b"close"


async def test_100_continue_is_not_sent_to_who_did_not_wait(gateway: GatewayBench) -> None:
    response = await gateway.call(b"POST", b"/api/x", b"Expect: 100-continue", body=b"ab")
    assert response.status == 200


async def test_an_early_response_ends_both_connections(gateway: GatewayBench) -> None:
    gateway.upstream.on_head = reply(b"no, thanks", "413 Too Large")
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Content-Length: 1000") + b"abc")
        response = await wire.response()
        assert (response.status, response.body) == (413, b"no, thanks")
        assert response.one(b"connection") == b"close"
        assert await wire.closed()
    await gateway.upstream.until_aborted()
    gateway.upstream.on_head = None
    assert (await gateway.call(b"GET", b"/api/x")).status == 200
    assert gateway.upstream.connections == 2


async def test_an_agent_that_hangs_up_is_not_waited_for(gateway: GatewayBench) -> None:
    gate = asyncio.Event()

    async def never(*_: object) -> None:
        await gate.wait()

    gateway.upstream.answer = never
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        await gateway.upstream.until_requests(1)
    await asyncio.sleep(0.05)
    gate.set()
    await gateway.upstream.until_aborted()
    outcome = (await gateway.records())[-1]
    assert (outcome["decision"], outcome.get("status")) == ("error", None)
    assert outcome["detail"].startswith("client_gone")


async def test_an_aborted_body_closes_the_upstream(gateway: GatewayBench) -> None:
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Content-Length: 1000") + b"abc")
        await until(lambda: b"POST" in gateway.upstream.bytes_received)
    await gateway.upstream.until_aborted()
    assert not gateway.upstream.requests
    assert (await gateway.call(b"GET", b"/api/x")).status == 200


async def test_a_malformed_body_closes_both(gateway: GatewayBench) -> None:
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"POST", b"/api/x", b"Transfer-Encoding: chunked"))
        await wire.send(b"3\r\nabc\r\n")
        while not gateway.upstream.connections:  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.002)
        await wire.send(b"3\nabc\r\n")
        assert (await wire.response()).error == "malformed_request"
        assert await wire.closed()
    await gateway.upstream.until_aborted()
    assert (await gateway.records())[-1]["decision"] == "error"


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"", "upstream_closed"),
        (b"HTTP/1.1 200", "upstream_closed"),
        (b"nonsense\r\n\r\n", "upstream_malformed"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "upstream_malformed",
        ),
    ],
)
async def test_an_upstream_that_fails_before_its_response(
    gateway: GatewayBench, wire: bytes, error: str
) -> None:
    gateway.upstream.answer = raw(wire, close=True)
    async with gateway.connect() as connection:
        for _ in range(2):
            await connection.send(gateway.head(b"GET", b"/api/x"))
            response = await connection.response()
            assert (response.status, response.error) == (502, error)
    assert {
        record["detail"].split(":")[0]
        for record in await gateway.records()
        if record["phase"] == "outcome"
    } == {error}


@pytest.mark.parametrize(
    ("framing", "more"),
    [
        (b"Content-Length: 100", b"short"),
        (b"Transfer-Encoding: chunked", b"5\r\nshort\r\n"),
        (b"Transfer-Encoding: chunked", b"nonsense\r\n"),
    ],
)
async def test_an_upstream_that_fails_in_mid_response_is_seen_to(
    gateway: GatewayBench, framing: bytes, more: bytes
) -> None:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        await asyncio.sleep(0.02)
        writer.write(more)
        writer.close()

    gateway.upstream.answer = answer
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"GET", b"/api/x"))
        assert (await connection.head()).status == 200
        assert not (await connection.rest()).endswith(b"0\r\n\r\n")
    outcome = (await gateway.records())[-1]
    assert (outcome["decision"], outcome["status"]) == ("error", 200)


async def close_idle(gateway: GatewayBench) -> None:
    """Close the idle upstream connection in the moment in which a request comes."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        gateway.upstream.answer = reply()
        writer.transport.abort()

    assert (await gateway.call(b"GET", b"/api/x")).status == 200
    gateway.upstream.answer = answer


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"DELETE"])
async def test_a_stale_connection_is_replaced_for_what_can_be_repeated(
    gateway: GatewayBench, method: bytes
) -> None:
    await close_idle(gateway)
    assert (await gateway.call(method, b"/api/y")).status == 200
    assert [request.target for request in gateway.upstream.requests] == [b"/x", b"/y", b"/y"]
    assert len(await gateway.records()) == 4


@pytest.mark.parametrize(("method", "body"), [(b"POST", b""), (b"PATCH", b"a"), (b"PUT", b"a")])
async def test_what_cannot_be_repeated_is_not(
    gateway: GatewayBench, method: bytes, body: bytes
) -> None:
    await close_idle(gateway)
    assert (await gateway.call(method, b"/api/y", body=body)).error == "upstream_closed"
    assert len(gateway.upstream.requests) == 2


async def test_nothing_is_repeated_on_a_new_connection(gateway: GatewayBench) -> None:
    gateway.upstream.answer = raw(b"", close=True)
    assert (await gateway.call(b"GET", b"/api/x")).error == "upstream_closed"
    assert len(gateway.upstream.requests) == 1


async def test_a_credential_that_is_not_there(gateway: GatewayBench) -> None:
    response = await gateway.call(b"GET", b"/unfilled/x")
    assert (response.status, response.error) == (502, "credential_refused")
    assert b"env:ABSENT" not in response.body
    assert "env:ABSENT" in (await gateway.records())[-1]["detail"]
    assert not gateway.upstream.requests


async def test_a_credential_that_cannot_be_had_now(gateway: GatewayBench) -> None:
    async def read(reference: str) -> Secret:
        raise ProviderError(reference, retryable=True)

    gateway.secrets.read = read  # type: ignore[method-assign]
    response = await gateway.call(b"POST", b"/api/x")
    assert (response.status, response.error) == (503, "credential_unavailable")


async def test_a_defect_in_a_provider_costs_one_request(gateway: GatewayBench) -> None:
    async def read(reference: str) -> Secret:
        raise ZeroDivisionError(reference)

    gateway.secrets.read = read  # type: ignore[method-assign]
    assert (await gateway.call(b"GET", b"/api/x")).error == "internal_error"


async def test_a_value_that_does_not_fit_is_never_sent(gateway: GatewayBench) -> None:
    gateway.secrets.values["env:KEY"] = b"key\r\nX-Smuggled: yes"
    assert (await gateway.call(b"GET", b"/api/x")).error == "credential_refused"
    assert gateway.upstream.bytes_received == b""


async def test_an_upstream_that_is_not_there(gateway: GatewayBench) -> None:
    gateway.upstream.port = free_port()
    gateway.load(policy_text())
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (502, "upstream_unreachable")


def impatient(**timeouts: str) -> str:
    limits = ", ".join(f"{name}: {value}" for name, value in timeouts.items())
    where = "base_url: http://127.0.0.1:PORT, insecure_http: true, allow_private: true"
    return policy_text(f"{where}, timeouts: {{{limits}}}")


async def test_an_upstream_that_does_not_answer(gateway: GatewayBench) -> None:
    gateway.load(impatient(first_byte="200ms"))
    gateway.upstream.answer = gateway.upstream.silence
    response = await gateway.call(b"GET", b"/api/x")
    assert (response.status, response.error) == (504, "upstream_timeout")


async def test_an_upstream_that_stops_in_mid_response(gateway: GatewayBench) -> None:
    async def stop(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab.")
        await gateway.upstream.silence(received, writer)

    gateway.load(impatient(idle="200ms"))
    gateway.upstream.answer = stop
    async with gateway.connect() as wire:
        await wire.send(gateway.head(b"GET", b"/api/x"))
        assert (await wire.head()).status == 200
        assert await wire.rest() == b"ab."
    assert "upstream_timeout" in (await gateway.records())[-1]["detail"]


async def test_a_slow_stream_is_not_an_idle_one(gateway: GatewayBench) -> None:
    async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _step in range(10):
            await asyncio.sleep(0.3)
            writer.write(b"x")

    gateway.load(impatient(idle="2s", first_byte="2s"))
    gateway.upstream.answer = drip
    assert (await gateway.call(b"GET", b"/api/x")).body == b"x" * 10


async def test_tls_to_the_upstream(tmp_path: Path, tls_authority: TestAuthority) -> None:
    context = tls_authority.certificate("localhost").context()
    async with gateway_bench(tmp_path / "audit") as bench, recording_upstream(context) as secure:
        secure.answer = reply(b"s" * 300_000)
        bench.upstream.port = secure.port
        where = "base_url: https://localhost:PORT, allow_private: true"
        bench.load(policy_text(f"{where}, ca_file: {tls_authority.ca_file}"))
        for _ in range(2):
            response = await bench.call(b"POST", b"/api/x", body=b"b" * 300_000)
            assert response.body == b"s" * 300_000
        assert secure.last.body == b"b" * 300_000
        assert secure.last.all(b"authorization") == [b"Bearer " + KEY.encode()]
        assert secure.connections == 1
        bench.load(policy_text(where))
        untrusted = await bench.call(b"GET", b"/api/x")
        assert untrusted.error == "upstream_unreachable"
        assert "not trusted" in untrusted.problem["detail"]


async def test_a_new_key_is_used_once_the_old_one_is_no_longer_fresh(
    gateway: GatewayBench,
) -> None:
    token = gateway.token()
    await gateway.call(b"GET", b"/api/x", token=token)
    gateway.secrets.values["env:KEY"] = b"rotated-key"
    await gateway.call(b"GET", b"/api/x", token=token)
    assert gateway.upstream.last.all(b"authorization") == [b"Bearer " + KEY.encode()]
    await gateway.call(b"GET", b"/api/x", token=gateway.token())
    assert gateway.upstream.last.all(b"authorization") == [b"Bearer rotated-key"]


@pytest.fixture
async def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GatewayBench]:
    """A gateway whose trail writes as soon as four wait, the credential for api at hand."""
    trail = open_trail(tmp_path)
    await trail.start()
    monkeypatch.setattr(module, "_GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_BESIDE_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_LAZY_SECONDS", 3600.0)
    monkeypatch.setattr("broker.audit.journal.HEAD_SECONDS", 3600.0)  # a commit of its own
    async with gateway_bench(tmp_path, trail=trail) as bench:
        token = bench.token()
        bench.token = lambda *_, **__: token  # type: ignore[method-assign]
        await bench.call(b"GET", b"/api/warm")
        await asyncio.gather(*(trail.record(record()) for _ in range(4)))
        yield bench
        await trail.close()


def by_path(records: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in records:
        found.setdefault(one["path"], []).append((one["phase"], one["decision"]))
    return found


async def test_what_is_safe_and_answered_before_it_is_written_is_one_record(
    crowded: GatewayBench,
) -> None:
    paths = [f"/x{number}" for number in range(4)]
    calls = (crowded.call(b"GET", b"/api" + path.encode()) for path in paths)
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    changes = (crowded.call(b"POST", b"/api/new", body=b"x") for _ in range(4))
    assert {answer.status for answer in await asyncio.gather(*changes)} == {200}
    found = by_path(await crowded.records())
    for path in paths:
        assert found[path] == [("outcome", "allow")]
    assert sorted(found["/new"]) == [("intent", "allow")] * 4 + [("outcome", "allow")] * 4


async def test_an_agent_that_hangs_up_before_its_answer_is_on_record_is_recorded_so(
    crowded: GatewayBench,
) -> None:
    async with crowded.connect() as wire:
        await wire.send(crowded.head(b"GET", b"/api/gone"))
        await until(lambda: bool(crowded.upstream.requests[1:]))
        await asyncio.sleep(0.1)  # the answer is held
    registry = CollectorRegistry()
    registry.register(crowded.metrics)
    errors = {"service": "api", "decision": "error", "status": ""}
    await until(
        lambda: registry.get_sample_value("broker_gateway_requests_total", errors) == 1,
    )
    calls = (crowded.call(b"GET", b"/api/x") for _ in range(3))
    await asyncio.gather(*calls)
    found = by_path(await crowded.records())
    assert found["/gone"] == [("outcome", "allow"), ("outcome", "error")]


async def test_where_the_upstream_fails_the_intent_is_written_before_the_outcome(
    crowded: GatewayBench,
) -> None:
    crowded.upstream.answer = raw(b"not http\r\n\r\n")
    assert (await crowded.call(b"GET", b"/api/bad")).status == 502
    found = by_path(await crowded.records())
    assert found["/bad"] == [("intent", "allow"), ("outcome", "error")]
