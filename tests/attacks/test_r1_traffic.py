"""R1 for what the gateway sends on: kill -9 in the midst of traffic, again and again.

`KILL_ROUNDS` makes more of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.process import alive, children
from tests.integration.site import Traffic, site

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.fakes.upstream import Received
    from tests.integration.site import Site

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "3"))
RATE: Final = 200.0


@pytest.mark.timeout(60 + 20 * ROUNDS)
@pytest.mark.parametrize("workers", [1, 2])
async def test_r1_kill_9_in_traffic_leaves_no_effect_without_its_record(
    tmp_path: Path, workers: int
) -> None:
    async with site(tmp_path, workers=workers) as place:
        async with place.broker():
            token = await place.token()
        place.upstream.answer = slowly
        traffic = Traffic(place, token, rate=RATE, agents=16)
        for number in range(ROUNDS):
            # No manual step between one and the next: the same command, on the same home.
            async with place.broker() as process, traffic.flowing():
                await some_more(place, traffic)
                await asyncio.sleep(random.uniform(0, 0.25))  # noqa: S311 - any moment will do
                if workers > 1 and number % 2 == 0:
                    await kill_one_worker(place, process)
                    await some_more(place, traffic)
                await kill(place, process)
            assert place.unrecorded == []
        async with place.broker():
            assert await place.call(token, "POST", "/v1/after") == (200, None)
        judge(place, traffic)


async def slowly(_: Received, writer: asyncio.StreamWriter) -> None:
    """Answer after a while, so that requests are under way at every moment."""
    await asyncio.sleep(random.uniform(0, 0.06))  # noqa: S311 - no secret
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def some_more(place: Site, traffic: Traffic) -> None:
    """Wait until agents have got more answers."""
    before = len(traffic.answered)
    await place.until(lambda: len(traffic.answered) > before + 60, "more answers")


async def kill(place: Site, process: subprocess.Popen[bytes]) -> None:
    """Kill a broker, all its processes at once."""
    pids = [process.pid, *children(process.pid)]
    for pid in pids:  # the supervisor first: it must not have the time to replace a worker
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(process.wait, 30)
    await place.until(lambda: not any(map(alive, pids)), "all of them to end")


async def kill_one_worker(place: Site, process: subprocess.Popen[bytes]) -> None:
    """Kill one of several workers, and wait for its successor."""
    before = place.log.count("is ready")
    os.kill(random.choice(children(process.pid)), signal.SIGKILL)  # noqa: S311 - either
    await place.until(lambda: place.log.count("is ready") > before, "another worker")


def judge(place: Site, traffic: Traffic) -> None:
    """Hold what agents were told and what the upstream saw against the trail."""
    report = place.verify()
    recorded = {
        one["path"]
        for one in place.records()
        if one.get("action") == "proxy.request"
        and (one["phase"] == "intent" or (one["method"], one["decision"]) == ("GET", "allow"))
    }
    seen = {one.path for one in place.seen}
    answered = {traffic.path(n) for n, (status, _) in traffic.answered.items() if status == 200}
    statuses = set(traffic.answered.values())
    assert place.unrecorded == []
    assert answered <= recorded, "no answer before its record is durable, whatever the method"
    assert answered <= seen
    assert statuses == {(200, None)}
    assert len([one for one in place.seen if one.method == "POST"]) > 20 * ROUNDS
    assert len([one for one in place.seen if one.method == "GET"]) > 20 * ROUNDS
    assert len(seen - answered) >= ROUNDS // 2, "there must have been requests in the midst"
    notes = [note for writer in report["writers"] for note in writer["notes"]]
    recovered = sum("had not closed its chain" in note for note in notes)
    assert recovered >= ROUNDS, "kills that left nothing to recover show little"
    print(  # noqa: T201 - with -s, for whoever runs it at length
        f"\n{ROUNDS} rounds, {len(answered) / traffic.seconds:.0f} answers/s: the upstream saw "
        f"{len(seen)} requests, agents got {len(answered)} answers, {len(recorded)} on record, "
        f"{recovered} chains recovered, all verified"
    )
