"""R6 for limits: nobody slips past one, and whoever exhausts his own takes nothing from others.

Attempts to get more than a limit says: all at once, over several workers and brokers, by narrowed
task tokens, by restarting the broker, by setting clocks back, by hanging up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from broker.token_request import ACCESS, EXCHANGE
from tests.components.process import wait_until
from tests.components.redis import running_redis
from tests.fakes.limited import limited
from tests.fakes.upstream import reply
from tests.fakes.wire import wire
from tests.integration.site import POLICY, Site, Traffic, site

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.gate import Gate
    from tests.components.redis import Redis
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

BURST: Final = 100
_QUIET: Final = """\
  quiet: {{trust: [{{source: local, claims: {{sub: quiet}}}}], scopes: [api.all]}}
"""
_MORE_SCOPES: Final = """\
  api.total: {{service: api, allow: ["* /v1/**"], limits: {{total: 7}}}}
  api.places: {{service: api, allow: ["* /v1/**"], limits: {{concurrent: 8}}}}
"""
EXHAUSTED: Final = (429, "limit_exceeded")


@asynccontextmanager
async def limited_site(directory: Path, limits: str, **how: Any) -> AsyncIterator[Site]:
    """A home whose agent has these limits, in a policy's words, for the scope api.all."""
    async with site(directory, **how) as made:
        plain = 'api.all: {{service: api, allow: ["* /v1/**"]'
        assert plain in POLICY
        text = POLICY.replace(plain, f"{plain}, limits: {{{limits}}}")
        text = text.replace("scopes: [", "scopes: [api.total, api.places, ")
        text = text.replace("agents:\n", f"{_MORE_SCOPES}agents:\n") + _QUIET
        made.home.policy(text.format(port=made.upstream.port, key=directory / "service.key"))
        yield made


async def burst(
    places: list[Site], token: str, number: int = BURST
) -> list[tuple[int, str | None]]:
    """Send requests all at once, each on a connection of its own, to brokers by turns."""
    calls = [
        places[one % len(places)].call(token, "POST" if one % 2 else "GET", f"/v1/x/{one}")
        for one in range(number)
    ]
    return list(await asyncio.gather(*calls))


def passed(answers: list[tuple[int, str | None]]) -> int:
    """Count what was let through; all else must have been refused by the limit."""
    through = [one for one in answers if one[0] == 200]
    assert set(answers) <= {(200, None), EXHAUSTED}, set(answers)
    return len(through)


async def narrowed(place: Site, token: str) -> str:
    """A child of a task token, by token exchange."""
    fields = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS,
        "scope": "api.all",
    }
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.post(f"{place.home.control_url}/token", data=fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.mark.parametrize("workers", [1, 2])
async def test_100_at_once_get_exactly_what_each_limit_says(tmp_path: Path, workers: int) -> None:
    async with limited_site(tmp_path, "{rate: 10/day}", workers=workers) as place, place.broker():
        token, other = await place.token(), await place.token()
        assert passed(await burst([place], token)) == 10
        assert passed(await burst([place], other)) == 0
        assert len(place.seen) == 10
        await place.until(lambda: len(_refused(place)) == 190, "each refusal to be on record")
        writers = {one["writer"] for one in _refused(place)}
        assert writers == {"main", "main.2"} if workers > 1 else {"main"}
        line = 'broker_limit_refusals_total{limit="rate",where="gateway"} 190.0'
        await place.until(lambda: line in place.get("/metrics").text, "metrics to tell")
        total = await place.token("api.total")
        assert passed(await burst([place], total)) == 7
        await _exact_places(place, await place.token("api.places"))
        assert not place.unrecorded
    place.verify()


async def _exact_places(place: Site, token: str) -> None:
    """As many are under way as there are places, and whoever hangs up keeps none."""
    release, before = asyncio.Event(), len(place.seen)

    async def wait(_: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    place.upstream.answer = wait
    calls = [asyncio.create_task(burst([place], token, 1)) for _ in range(60)]
    await place.until(lambda: len(place.seen) == before + 8, "eight to be under way")
    await place.until(lambda: sum(call.done() for call in calls) == 52, "refusals of the others")
    release.set()
    assert sum(map(passed, await asyncio.gather(*calls))) == 8
    for _ in range(3):
        place.upstream.answer = place.upstream.silence
        async with AsyncExitStack() as stack:
            for number in range(8):
                connection = await stack.enter_async_context(wire(place.port))
                await connection.send(place.head(token, "GET", f"/v1/gone/{number}"))
            await asyncio.sleep(0.2)
    place.upstream.answer = reply()

    async def all_free() -> bool:
        return passed(await burst([place], token, 8)) == 8

    await place.until(all_free, "all places to be free")


async def test_two_brokers_with_one_redis_are_one_broker_to_a_limit(
    tmp_path: Path, component: Gate
) -> None:
    with running_redis(component) as redis:
        async with AsyncExitStack() as stack:
            places = await _brokers(stack, tmp_path, redis, "{rate: 10/day, total: 1000}")
            tokens = [await place.token() for place in places]
            # No more than a broker gets through in the 2 s for which it waits for a connection.
            calls = (burst([place], token, 30) for place, token in zip(places, tokens, strict=True))
            answers = await asyncio.gather(*calls)
            assert passed(answers[0]) + passed(answers[1]) == 10
            assert sum(len(place.seen) for place in places) == 10


async def test_a_redis_that_dies_in_traffic_lets_nothing_through_that_is_limited(
    tmp_path: Path, component: Gate
) -> None:
    with running_redis(component) as redis:
        async with AsyncExitStack() as stack:
            (place,) = await _brokers(stack, tmp_path, redis, "{rate: 100000/day}", number=1)
            traffic = Traffic(place, await place.token(), rate=60)
            others = Traffic(place, await place.token("api.read"), rate=20, agents=2)
            async with traffic.flowing(), others.flowing():
                await place.until(lambda: len(traffic.answered) > 30, "traffic")
                redis.kill()
                await place.until(lambda: _unavailable(traffic) > 10, "refusals")
                await asyncio.sleep(0.5)  # what was counted before is sent by then
                before = len([one for one in place.seen if one.method == "POST"])
                await asyncio.sleep(0.5)
                assert len([one for one in place.seen if one.method == "POST"]) == before
                checks = place.get("/readyz").json()["checks"]
                assert checks["limits"]["state"] == "degraded"
                with running_redis(component, port=redis.port):
                    refused = _unavailable(traffic)
                    good = len(traffic.answered) - refused
                    await place.until(
                        lambda: len(traffic.answered) - _unavailable(traffic) > good + 30,
                        "traffic to flow again",
                    )
                    await place.until(
                        lambda: place.get("/readyz").json()["checks"]["limits"]["state"] == "ok",
                        "counts to be well",
                    )
            assert {status for status, _ in others.answered.values()} <= {200, 405, 403}
            answers = set(traffic.answered.values())
            assert answers == {(200, None), (503, "limits_unavailable")}
            assert not place.unrecorded


async def test_a_total_is_one_for_a_token_and_its_children_and_outlasts_kill_9(
    tmp_path: Path,
) -> None:
    async with limited_site(tmp_path, "{total: 12}") as place:
        async with place.broker() as process:
            token = await place.token()
            children = [await narrowed(place, token) for _ in range(4)]
            grandchild = await narrowed(place, children[0])
            answers = [await burst([place], one, 2) for one in (token, *children, grandchild)]
            assert sum(map(passed, answers)) == 12
            _kill(process)
        async with place.broker():
            for one in (token, *children, grandchild, await narrowed(place, token)):
                assert passed(await burst([place], one, 5)) == 0
            assert passed(await burst([place], await place.token(), 20)) == 12
            (status, code), *_ = await burst([place], token, 1)
            assert (status, code) == EXHAUSTED
        assert len(place.seen) == 24


async def test_the_places_of_a_worker_that_is_killed_are_free_again(tmp_path: Path) -> None:
    async with (
        limited_site(tmp_path, "{concurrent: 4}", workers=2) as place,
        place.broker() as process,
    ):
        place.upstream.answer = place.upstream.silence
        token = await place.token()
        async with AsyncExitStack() as stack:
            for number in range(4):
                connection = await stack.enter_async_context(wire(place.port))
                await connection.send(place.head(token, "GET", f"/v1/held/{number}"))
            await place.until(lambda: len(place.seen) == 4, "four to be under way")
            assert passed(await burst([place], token, 10)) == 0
            for pid in _children(process):
                os.kill(pid, signal.SIGKILL)
            place.upstream.answer = reply()

            async def free() -> bool:
                with suppress(OSError, asyncio.IncompleteReadError):
                    return (await place.call(token, "GET", "/v1/again"))[0] == 200
                return False

            await place.until(free, "places to be free", patience=60)


async def test_a_noisy_agent_takes_nothing_from_a_quiet_one(tmp_path: Path) -> None:
    limits = "{rate: 5/day}"
    async with limited_site(tmp_path, limits, workers=2) as place, place.broker():
        noisy = Traffic(place, await place.token(), rate=400, agents=16)
        reads = await place.token("api.read")  # not limited, even for the noisy agent
        await asyncio.to_thread(place.home.run, "agents", "enroll", "quiet")
        arguments = ("token", "--agent", "quiet", "--scope", "api.all")
        quiet = (await asyncio.to_thread(place.home.run, *arguments)).strip()
        async with noisy.flowing():
            await place.until(lambda: len(noisy.answered) > 100, "noise")
            for number in range(5):  # its own five, whatever the other does
                assert await place.call(quiet, "GET", f"/v1/q/{number}") == (200, None)
            assert await place.call(quiet, "GET", "/v1/q/6") == EXHAUSTED
            for number in range(20):
                assert (await place.call(reads, "GET", f"/v1/r/{number}"))[0] == 200
        assert [status for status, _ in noisy.answered.values()].count(200) == 5
        assert set(noisy.answered.values()) == {(200, None), EXHAUSTED}


async def test_clocks_that_are_set_back_give_nothing_and_lock_nobody_out(
    metered: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    metered.load(limited("{rate: 2/second}", agent="{rate: 50/day}"))
    token = metered.token(lifetime=86_000)
    real, step = time.time, [0.0]
    monkeypatch.setattr("time.time", lambda: real() + step[0])

    async def statuses() -> list[int]:
        calls = (metered.call(b"GET", b"/api/x", token=token) for _ in range(20))
        return sorted([one.status for one in await asyncio.gather(*calls)])

    for step[0] in (0.0, -3600.0, 3600.0, -7200.0):
        found = await statuses()
        assert found.count(200) <= 4  # of at most two windows: a burst may straddle two
        assert found.count(200) >= 2
        await asyncio.sleep(1.1)
    assert len(metered.upstream.requests) <= 16


async def _brokers(
    stack: AsyncExitStack, directory: Path, redis: Redis, limits: str, number: int = 2
) -> list[Site]:
    """Brokers that count together; each has a home and an upstream of its own."""
    places = []
    for one in range(number):
        (directory / str(one)).mkdir()
        made = limited_site(
            directory / str(one), limits, environment={"BROKER_LIMITS_URL": redis.url}
        )
        places.append(await stack.enter_async_context(made))
        await stack.enter_async_context(places[-1].broker())
    return places


def _refused(place: Site) -> list[dict[str, Any]]:
    return [one for one in place.records() if one.get("status") == 429]


def _unavailable(traffic: Traffic) -> int:
    return list(traffic.answered.values()).count((503, "limits_unavailable"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: process.poll() is not None, "the broker to be dead")


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - proc
        return [int(pid) for pid in file.read().split()]
