from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.gateway.guard import Connector
from broker.gateway.limits import GatewayLimits
from broker.gateway.pool import Pool
from broker.gateway.route import Route
from tests.components.process import free_port
from tests.fakes.gateway import policy, policy_text
from tests.fakes.upstream import Upstream, recording_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from broker.gateway.problems import Refusal
    from broker.gateway.response import ResponseHead
    from broker.gateway.upstream import UpstreamConnection

GET = b"GET / HTTP/1.1\r\nHost: u\r\n\r\n"


@dataclass
class Request:
    """Wants a connection, sends a request on it and waits for the answer."""

    waiting: bool = True
    agent: str = "tester"
    hold: bool = False
    connection: UpstreamConnection | None = None
    refusal: Refusal | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, connection: UpstreamConnection) -> None:
        self.waiting = False
        self.connection = connection
        if self.hold:
            self.over.set()
        else:
            self.send()

    def unconnected(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.over.set()

    def send(self) -> None:
        assert self.connection is not None
        self.connection.begin(self, b"GET", GET, whole=True)

    def answered(self, _head: ResponseHead, _content: bytes, *, done: bool) -> None:
        assert done
        self.over.set()

    def content(self, content: bytes, *, done: bool) -> None:
        raise NotImplementedError(content, done)

    def trailed(self, lines: Sequence[bytes]) -> None:
        raise NotImplementedError(lines)

    def failed(self, refusal: Refusal, *, stale: bool) -> None:
        raise NotImplementedError(refusal, stale)

    def upstream_full(self) -> None:
        raise NotImplementedError

    def upstream_ready(self) -> None:
        raise NotImplementedError

    async def wait(self) -> UpstreamConnection:
        async with asyncio.timeout(5):
            await self.over.wait()
        assert self.connection is not None
        return self.connection


@dataclass
class Bench:
    upstream: Upstream
    pool: Pool
    route: Route

    def take(self, *, fresh: bool = False, hold: bool = False, agent: str = "tester") -> Request:
        request = Request(hold=hold, agent=agent)
        self.pool.take(self.route, request, fresh=fresh)
        return request


def route(port: int, name: str = "api") -> Route:
    snapshot = policy(policy_text(), port)
    service = snapshot.services[name]
    assert service.upstream is not None
    return Route(snapshot, service, service.upstream)


@asynccontextmanager
async def bench(**limits: Any) -> AsyncIterator[Bench]:
    async with recording_upstream() as upstream:
        pool = Pool(Connector(lambda: ()), GatewayLimits(**limits))
        yield Bench(upstream, pool, route(upstream.port))
        await pool.close()


async def test_a_connection_is_used_again() -> None:
    async with bench() as it:
        first = await it.take().wait()
        assert await it.take().wait() is first
        assert it.upstream.connections == it.pool.size == 1


async def test_the_one_used_last_is_used_first() -> None:
    async with bench() as it:
        held = [it.take(hold=True) for _ in range(3)]
        connections = [await request.wait() for request in held]
        for request in held:
            request.over.clear()
            request.send()
            await request.wait()
        assert [(await it.take(hold=True).wait()) for _ in range(3)] == connections[::-1]


async def test_a_fresh_one_is_made_on_demand() -> None:
    async with bench() as it:
        first = await it.take().wait()
        assert await it.take(fresh=True).wait() is not first
        assert it.pool.size == 2


async def test_connections_are_bounded_and_passed_on() -> None:
    async with bench(upstream_connections=2, upstream_waiting=2) as it:
        held = [it.take(hold=True) for _ in range(2)]
        for request in held:
            await request.wait()
        queued = [it.take() for _ in range(2)]
        refused = it.take()
        assert refused.refusal is not None
        assert refused.refusal.code == "overloaded"
        queued[0].waiting = False  # it gave up in the meantime
        held[0].send()
        assert await queued[1].wait() is held[0].connection
        assert not queued[0].over.is_set()
        assert it.upstream.connections == 2


async def test_no_agent_has_every_connection_and_all_take_turns() -> None:
    async with bench(upstream_connections=4, upstream_waiting=4) as it:
        it.upstream.answer = it.upstream.silence
        noisy = [it.take(agent="noisy") for _ in range(6)]
        await it.upstream.until_requests(3)
        assert noisy[5].refusal is None  # three on their way, and the others wait
        assert it.take(agent="noisy").refusal is not None
        quiet = it.take(agent="quiet")
        await it.upstream.until_requests(4)
        also_waits = it.take(agent="quiet")
        assert [one.connection is not None for one in noisy] == [True] * 3 + [False] * 3
        # What becomes free goes to whoever has less than its share, and then in turn.
        assert quiet.connection is not None
        quiet.connection.abort()
        await it.upstream.until_requests(5)
        assert also_waits.connection is not None
        assert noisy[0].connection is not None
        noisy[0].connection.abort()
        await it.upstream.until_requests(6)
        assert noisy[3].connection is not None
        assert it.pool.size == 4


async def test_an_idle_connection_to_one_service_makes_way_for_another() -> None:
    async with bench(connections=2) as it, recording_upstream() as other:
        first = await it.take().wait()
        it.route = route(other.port)
        for _ in range(2):
            it.take(fresh=True)
        await other.until_requests(2)
        assert not first.usable


async def test_a_lost_connection_makes_room_for_who_waits() -> None:
    async with bench(upstream_connections=1) as it:
        held = it.take(hold=True)
        queued = it.take()
        (await held.wait()).abort()
        assert await queued.wait() is not held.connection
        assert it.pool.size == 1


async def test_a_closed_idle_connection_is_forgotten() -> None:
    async with bench() as it:
        first = await it.take().wait()
        (writer,) = it.upstream.writers
        writer.close()
        async with asyncio.timeout(5):
            while it.pool.size:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.005)
        assert await it.take().wait() is not first


async def test_idle_connections_are_closed_in_time() -> None:
    async with bench(pool_idle=10.0) as it:
        await it.take().wait()
        for now in (100.0, 109.9):
            it.pool.sweep(now)
            assert it.pool.size == 1
        await it.take().wait()  # in use: its time begins anew
        for now in (111.0, 120.9):
            it.pool.sweep(now)
            assert it.pool.size == 1
        it.pool.sweep(121.1)
        await asyncio.sleep(0.02)
        assert it.pool.size == 0
        it.pool.sweep(121.1)
        assert not it.pool._upstreams
        await it.take().wait()


async def test_services_share_connections_only_to_the_same_upstream() -> None:
    async with bench() as it:
        first = await it.take().wait()
        it.route = route(it.upstream.port, "keyed")
        assert await it.take().wait() is first
        async with recording_upstream() as other:
            it.route = route(other.port)
            assert await it.take().wait() is not first
            assert other.connections == 1


async def test_an_upstream_that_is_not_there_refuses_everybody_who_waits() -> None:
    async with bench(upstream_connections=1) as it:
        it.route = route(free_port())
        requests = [it.take() for _ in range(3)]
        for request in requests:
            async with asyncio.timeout(5):
                await request.over.wait()
            assert request.refusal is not None
            assert request.refusal.code == "upstream_unreachable"
        assert it.pool.size == 0


async def test_who_gave_up_while_connecting_leaves_the_connection_to_others() -> None:
    async with bench() as it:
        gone = it.take()
        gone.waiting = False
        async with asyncio.timeout(5):
            while not it.upstream.connections:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        await it.take().wait()
        assert it.upstream.connections == 1


async def test_a_closed_pool_keeps_nothing() -> None:
    async with bench() as it:
        await it.take().wait()
        held = it.take(hold=True)
        await held.wait()
        opening = it.take(fresh=True)
        await it.pool.close()
        held.over.clear()
        held.send()
        await held.wait()
        await asyncio.sleep(0.02)
        assert it.pool.size == 0
        assert not opening.over.is_set()


async def test_a_defect_costs_one_request() -> None:
    async with bench() as it:

        async def broken(*_: object) -> None:
            raise ZeroDivisionError

        it.pool._connector.open = broken  # type: ignore[assignment]
        request = it.take()
        async with asyncio.timeout(5):
            await request.over.wait()
        assert request.refusal is not None
        assert request.refusal.code == "internal_error"
        assert it.pool.size == 0
