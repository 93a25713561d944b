"""R5 and R4 for the running broker: the wall clock steps by an hour, the process is suspended."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from broker.grants import STALE_AFTER
from broker.leases.reaper import Reaper
from tests.broker.audit.trails import record
from tests.components.process import children
from tests.fakes.lease_bench import NOW
from tests.fakes.wire import wire
from tests.integration.site import Site, site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.faults import Faults
    from tests.fakes.lease_bench import LeaseBench
    from tests.fakes.upstream import Received
    from tests.fakes.wire import Wire

HOUR: Final = 3600
OK: Final = (200, None)
DEAD: Final = (401, "token_invalid")
STREAM: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def place(tmp_path: Path, faults: Faults) -> AsyncIterator[Site]:
    """Give a home whose broker and commands have the clock of `faults`."""
    async with site(tmp_path, environment=faults.environment) as made:
        yield made


async def test_r5_the_wall_clock_steps_by_an_hour_and_back(place: Site, faults: Faults) -> None:
    async with place.broker():
        long, brief = await place.token(), await place.token(ttl="10m")
        assert await place.call(long, "POST", "/v1/1") == OK
        assert await place.call(brief, "POST", "/v1/2") == OK

        faults.set_clock(HOUR // 2)
        assert await place.call(brief, "GET", "/v1/3") == DEAD, "its time is over by this clock"
        assert await place.call(long, "GET", "/v1/4") == OK
        later = await place.token()
        assert await place.call(later, "GET", "/v1/5") == OK

        faults.set_clock(0)
        assert await place.call(later, "GET", "/v1/6") == OK, "known, and not yet over"
        faults.set_clock(-HOUR)
        assert await place.call(long, "GET", "/v1/7") == OK
        earlier = await place.token()
        assert await place.call(earlier, "POST", "/v1/8") == OK
        # What nobody has seen before is from the future now.
        assert await place.call(brief, "GET", "/v1/9") == DEAD

        faults.set_clock(0)
        assert await place.call(earlier, "GET", "/v1/10") == DEAD, "an hour old by this clock"
        assert await place.call(brief, "GET", "/v1/11") == OK, "of ten minutes, after seconds"
        assert await place.present(place.proof()) == 200
    report = place.verify()
    assert all(writer["closed"] for writer in report["writers"])
    outcomes = [one for one in place.records() if one.get("phase") == "outcome"]
    stored = [one["path"].rpartition("/")[2] for one in outcomes if "path" in one]
    assert stored == [str(number) for number in range(1, 12)], "by sequence, not by time"
    logs = [line for line in place.home.run("logs").splitlines() if "/v1/" in line]
    shown = [re.search(r"/v1/(\d+)", line) for line in logs]
    assert [found and found[1] for found in shown] == stored
    assert place.unrecorded == []


async def test_r5_a_token_that_has_run_out_stays_dead(place: Site, faults: Faults) -> None:
    """The clock is set back by less than what is forgiven to tokens from the future."""
    async with place.broker():
        token = await place.token(ttl="4s")
        assert await place.call(token, "GET", "/v1/1") == OK
        faults.set_clock(-20)
        await asyncio.sleep(4.2)
        for _ in range(3):
            assert await place.call(token, "GET", "/v1/2") == DEAD


async def test_r5_a_spent_proof_stays_spent(place: Site, faults: Faults) -> None:
    proof = place.proof()
    async with place.broker():
        assert await place.present(proof) == 200
    faults.set_clock(HOUR)
    async with place.broker():  # which forgets what is over, to begin with
        assert await place.present(proof) in {400, 401}
    faults.set_clock(0)
    async with place.broker():
        assert await place.present(proof) in {400, 401}
        refused = [one for one in place.records() if one.get("decision") == "deny"]
        assert "used before" in refused[-1]["detail"], "and not because its time is over"


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_r5_a_revocation_counts_whatever_the_clock_said(
    place: Site, faults: Faults, ahead: int
) -> None:
    async with place.broker():
        token = await place.token()
        assert await place.call(token, "GET", "/v1/1") == OK
        faults.set_clock(ahead // 2)
        await asyncio.to_thread(place.home.run, "revoke", "--agent", "my-agent", "--yes")

        async def dead() -> bool:
            return await place.call(token, "POST", "/v1/2") == DEAD

        await place.until(dead, "the revocation to be heard")
        faults.set_clock(0)
        assert await dead()
        faults.set_clock(-ahead // 2)
        assert await dead()
    faults.set_clock(0)
    async with place.broker():
        assert await dead()


async def test_r5_no_stream_no_connection_and_no_limit_goes_by_the_wall_clock(
    place: Site, faults: Faults
) -> None:
    async def ticks(received: Received, writer: asyncio.StreamWriter) -> None:
        if b"/stream" not in received.target:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(STREAM)
        while not writer.is_closing():
            writer.write(b"5\r\ntick\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    place.upstream.answer = ticks
    place.limit("rate: 3/hour")

    async def get(connection: Wire, token: str, path: str) -> int:
        await connection.send(place.head(token, "GET", path))
        return (await connection.response()).status

    async with place.broker(), wire(place.port) as streaming, wire(place.port) as kept:
        token = await place.token()
        await streaming.send(place.head(token, "GET", "/v1/stream"))
        assert (await streaming.head()).status == 200
        assert await get(kept, token, "/v1/1") == 200
        few = await place.token("api.few")
        assert [await get(kept, few, "/v1/few") for _ in range(4)] == [200, 200, 200, 429]
        made = place.upstream.connections
        for ahead in (HOUR // 2, 0, -HOUR, 0):
            faults.set_clock(ahead)
            await asyncio.sleep(0.4)  # the gateway looks at its deadlines four times a second
            heard = b""
            while heard.count(b"tick\n") < 20:
                piece = await streaming.chunk()
                assert piece, "the stream has ended"
                heard += piece
            assert await get(kept, token, f"/v1/{ahead}") == 200
            assert await get(kept, few, "/v1/few") == 429
        assert place.upstream.connections == made, "the pool's time-outs do not follow the clock"


async def test_r4_r5_a_suspended_broker_wakes_up_distrustful(tmp_path: Path) -> None:
    """What was revoked while it slept is not let through in the moment in which it wakes."""
    async with site(tmp_path, workers=2) as place, place.broker() as process:
        pids = [process.pid, *children(process.pid)]
        token, other = await place.token(), await place.token()
        connections = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(8)]
        for reader, writer in connections:
            writer.write(place.head(token, "POST", "/v1/before", "Content-Length: 0"))
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")

        async def noted() -> bool:
            told = await asyncio.to_thread(place.home.run, "sessions", "--json")
            return bool(sum(one["requests"] for one in json.loads(told)) == len(connections))

        # Whoever is stopped while he writes it holds the database.
        await place.until(noted, "the use to be written down")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.to_thread(place.home.run, "revoke", _session(place, token), "--yes")
        for number, (_, writer) in enumerate(connections):
            writer.write(place.head(token, "POST", f"/v1/slept/{number}", "Content-Length: 0"))
        await asyncio.sleep(STALE_AFTER + 0.5)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for reader, writer in connections:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            assert head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 401 ")), head
            writer.transport.abort()
        assert not [one for one in place.seen if one.path.startswith("/v1/slept")]

        async def dead() -> bool:
            return await place.call(token, "POST", "/v1/after") == DEAD

        await place.until(dead, "the revocation to be heard")

        async def well() -> bool:
            return await place.call(other, "POST", "/v1/other") == OK

        await place.until(well, "the worker that answers to have heard, too")
        await asyncio.to_thread(place.verify)


def _session(place: Site, _: str) -> str:
    """Return the grant of the token that has been used."""
    return next(str(one["grant"]) for one in place.records() if one.get("path") == "/v1/before")


@pytest.mark.parametrize("seed", range(8))
async def test_r5_no_lease_is_lost_or_ended_twice(lease_bench: LeaseBench, seed: int) -> None:
    """Two workers end what is due while the clock they share steps to and fro, also meanwhile."""
    bench, random = lease_bench, Random(seed)  # noqa: S311 - the same steps each time
    desks = [replace(bench.desk, owner=name) for name in ("one", "two")]
    reapers = [Reaper(desk, asyncio.Event()) for desk in desks]
    bench.vendor.life = random.choice([None, 120])
    for number in range(10):
        await bench.deliver("reserving.use", jti=f"grant-{number}")

    async def step() -> None:
        bench.clock.now += random.choice([-HOUR, HOUR, 1])

    bench.vendor.before |= {"revoke": step, "renew": step}
    for _ in range(12):
        await step()
        await asyncio.gather(*(reaper.reap() for reaper in reapers))
        bench.clock.now += random.choice([5, 60, 400])
        if random.random() < 0.3:
            await bench.revoke(f"grant-{random.randrange(10)}")
    bench.vendor.before.clear()
    bench.clock.now = max(bench.clock.now, NOW) + 2 * HOUR
    while any(await asyncio.gather(*(reaper.reap() for reaper in reapers))):
        pass
    assert bench.vendor.live == {}
    assert await bench.storage.leases.leases() == (), "none is left"
    assert len(await bench.storage.leases.leases(over=True)) == 10, "and none is lost"
    await bench.trail.record(record())  # what was queued before it is on disk then
    ends = [one for one in bench.records() if one["action"] == "credential.revoke"]
    ended = [one["grant"] for one in ends if one["decision"] == "allow"]
    assert sorted(ended) == sorted(f"grant-{number}" for number in range(10))
