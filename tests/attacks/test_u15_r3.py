"""U15, R3 and R4: what is revoked ends, in the midst of a stream and in the midst of being issued.

C3, a restored database that forgets revocations, is in tests/broker/storage/test_revocations.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import StorageError, TokenRefused
from broker.grants import Grants
from broker.revoked import revocation
from broker.tokens import MAX_TOKEN_BYTES
from tests.fakes.gateway import AGENT
from tests.fakes.token_bench import exchanged, narrowed

if TYPE_CHECKING:
    from broker.model import Grant, RevocationKind
    from broker.storage.base import ReplayClaim, Saved
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.token_bench import TokenBench
    from tests.fakes.upstream import Received
    from tests.fakes.wire import Wire

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: tick\n\n"


async def _events(_: Received, writer: asyncio.StreamWriter) -> None:
    """Answer with events for ever."""
    writer.write(STREAM)
    while not writer.is_closing():
        writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
        await writer.drain()
        await asyncio.sleep(0.005)


async def _silence(_: Received, __: asyncio.StreamWriter) -> None:
    """Answer nothing yet."""


def _revoke(gateway: GatewayBench, kind: RevocationKind, value: str) -> None:
    """Bring a revocation to the gateway's process, as the app does."""
    gateway.grants.learn([revocation(kind, value, now=time.time(), by="test")])
    gateway.server.cut(gateway.grants.is_revoked)


def _grant(gateway: GatewayBench, token: bytes) -> Grant:
    return gateway.grants.require(token)


async def _is_cut(connection: Wire) -> bool:
    """Read on; tell whether the response is broken off before its end."""
    try:
        while await connection.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        return True
    return False


async def _first_event(connection: Wire) -> bool:
    assert (await connection.head()).status == 200
    return await connection.chunk() == EVENT


async def _outcome(gateway: GatewayBench, grant: Grant) -> dict[str, Any]:
    records = await gateway.records()
    (outcome,) = [
        one for one in records if one.get("grant") == grant.jti and one["phase"] == "outcome"
    ]
    return outcome


@pytest.mark.parametrize("kind", ["grant", "agent", "scope", "all"])
async def test_u15_a_running_stream_is_cut(gateway: GatewayBench, kind: RevocationKind) -> None:
    gateway.upstream.answer = _events
    token = gateway.token("api.all")
    grant = _grant(gateway, token)
    values = {"grant": grant.jti, "agent": AGENT, "scope": "api.all", "all": ""}
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"GET", b"/api/v1/events", token=token))
        assert (await connection.head()).status == 200
        assert await connection.chunk() == EVENT
        _revoke(gateway, kind, values[kind])
        assert await _is_cut(connection)
    await gateway.upstream.until_aborted()
    outcome = await _outcome(gateway, grant)
    assert (outcome["decision"], outcome["status"]) == ("error", 200)
    assert "revoked" in outcome["detail"]
    assert outcome["bytes_out"] >= len(EVENT)


async def test_u15_a_child_s_stream_ends_with_its_parent(gateway: GatewayBench) -> None:
    gateway.upstream.answer = _events
    token = gateway.token("api.all", ancestors=("root", "middle"))
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"GET", b"/api/v1/events", token=token))
        assert await _first_event(connection)
        _revoke(gateway, "grant", "root")
        assert await _is_cut(connection)


async def test_u15_other_streams_go_on(gateway: GatewayBench) -> None:
    gateway.upstream.answer = _events
    one, other = gateway.token("api.all"), gateway.token("api.all")
    async with gateway.connect() as first, gateway.connect() as second:
        for connection, token in ((first, one), (second, other)):
            await connection.send(gateway.head(b"GET", b"/api/v1/events", token=token))
            assert await _first_event(connection)
        _revoke(gateway, "grant", _grant(gateway, one).jti)
        assert await _is_cut(first)
        for _ in range(20):
            assert await second.chunk() == EVENT


async def test_u15_a_request_without_an_answer_yet_is_refused(gateway: GatewayBench) -> None:
    gateway.upstream.answer = _silence
    token = gateway.token()
    grant = _grant(gateway, token)
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"GET", b"/api/v1/slow", token=token))
        await gateway.upstream.until_requests(1)
        _revoke(gateway, "grant", grant.jti)
        response = await connection.response()
        assert (response.status, response.error) == (401, "token_invalid")
        assert "may have had its effect" in response.problem["detail"]
    await gateway.upstream.until_aborted()
    assert "revoked" in (await _outcome(gateway, grant))["detail"]


async def test_u15_an_upload_is_cut(gateway: GatewayBench) -> None:
    token, begun = gateway.token(), asyncio.Event()

    async def begin(_: Received, __: asyncio.StreamWriter) -> None:
        begun.set()

    gateway.upstream.on_head = begin
    line = b"Content-Length: 100000"
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"POST", b"/api/v1/up", line, token=token) + b"x" * 500)
        await asyncio.wait_for(begun.wait(), 5)
        _revoke(gateway, "grant", _grant(gateway, token).jti)
        response = await connection.response()
        assert (response.status, response.error) == (401, "token_invalid")
        assert await connection.closed()
    await gateway.upstream.until_aborted()
    assert gateway.upstream.requests == []


async def test_u15_the_next_request_of_a_kept_connection_is_refused(gateway: GatewayBench) -> None:
    token = gateway.token()
    async with gateway.connect() as connection:
        await connection.send(gateway.head(b"GET", b"/api/v1/x", token=token))
        assert (await connection.response()).status == 200
        _revoke(gateway, "grant", _grant(gateway, token).jti)
        await connection.send(gateway.head(b"GET", b"/api/v1/x", token=token))
        response = await connection.response()
        assert (response.status, response.error) == (401, "token_invalid")
        assert b'error="invalid_token"' in (response.one(b"www-authenticate") or b"")
        await connection.send(gateway.head(b"GET", b"/api/v1/x"))
        assert (await connection.response()).status == 200  # by another token
    assert len(gateway.upstream.requests) == 2


async def test_u15_every_stream_of_many_is_cut_and_on_record(gateway: GatewayBench) -> None:
    gateway.upstream.answer = _events
    tokens = [gateway.token("api.all") for _ in range(20)]
    grants = [_grant(gateway, token) for token in tokens]
    begun = []

    async def stream(token: bytes) -> None:
        async with gateway.connect() as connection:
            await connection.send(gateway.head(b"GET", b"/api/v1/events", token=token))
            assert await _first_event(connection)
            begun.append(token)
            assert await _is_cut(connection)

    streams = [asyncio.create_task(stream(token)) for token in tokens]
    async with asyncio.timeout(20):
        while len(begun) < len(tokens):  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.005)
    _revoke(gateway, "all", "")
    await asyncio.gather(*streams)
    records = await gateway.records()
    ended = {one["grant"]: one["detail"] for one in records if one["phase"] == "outcome"}
    assert ended.keys() == {grant.jti for grant in grants}
    assert all("revoked" in detail for detail in ended.values())


async def test_r4_while_revocations_are_unknown_nothing_passes(gateway: GatewayBench) -> None:
    """A lagging store, a partition, a paused node: closed on staleness, and 503 says so."""
    unlearned = Grants(gateway.tokens, lambda: gateway.store.current)
    gateway.authority._grants = unlearned  # type: ignore[misc]
    response = await gateway.call(b"GET", b"/api/v1/x")
    assert (response.status, response.error) == (503, "revocations_unknown")
    assert response.one(b"retry-after") == b"1"
    with pytest.raises(StorageError):
        gateway.authority.parent(gateway.token())
    unlearned.learn(())
    assert (await gateway.call(b"GET", b"/api/v1/x")).status == 200
    assert len(gateway.upstream.requests) == 1


async def test_r3_a_token_that_was_being_issued_is_not(token_bench: TokenBench) -> None:
    """The agent is revoked after policy has agreed and before the grant is stored."""
    whole, proof = token_bench.storage.save_grant, token_bench.proof()

    async def overtaken(grant: Grant, claim: ReplayClaim | None = None) -> Saved:
        order = revocation("agent", "release-bot", now=token_bench.identities.wall(), by="test")
        await token_bench.storage.revocations.add(order)
        return await whole(grant, claim)

    token_bench.storage.save_grant = overtaken  # type: ignore[method-assign]
    refusal = await token_bench.refused(exchanged(proof))
    assert (refusal.cause, await token_bench.storage.sessions(0)) == ("revoked", ())
    assert token_bench.records()[-1]["decision"] == "deny"
    token_bench.storage.save_grant = whole  # type: ignore[method-assign]
    token_bench.wait(1)
    await token_bench.exchange.token(exchanged(proof))  # the proof was not spent


async def test_r3_no_child_outlives_a_parent_revoked_meanwhile(token_bench: TokenBench) -> None:
    """Another worker revokes the parent; this one has not heard of it when a child is asked for."""
    parent = await token_bench.ask()
    grant = await token_bench.grant_of(parent)
    order = revocation("grant", grant.jti, now=token_bench.identities.wall(), by="test")
    await token_bench.storage.revocations.add(order)
    assert token_bench.grants.require(parent.access_token.encode()) == grant
    refusal = await token_bench.refused(narrowed(parent.access_token, "api.read"))
    assert refusal.cause == "revoked"


async def test_r3_of_many_children_asked_for_at_once_none_is_good(token_bench: TokenBench) -> None:
    parent = await token_bench.ask()
    jti = (await token_bench.grant_of(parent)).jti
    asked = [
        token_bench.exchange.token(narrowed(parent.access_token, "api.read")) for _ in range(40)
    ]
    asked.insert(20, token_bench.revoke(jti))  # type: ignore[arg-type]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if hasattr(answer, "access_token"):
            refused = token_bench.grants.verify(answer.access_token.encode()[:MAX_TOKEN_BYTES])
            assert getattr(refused, "code", None) == "revoked"
        else:
            assert isinstance(answer, TokenRefused) or hasattr(answer, "revocation")
    assert await token_bench.storage.sessions(token_bench.identities.wall()) == ()
