"""A2 and R6 for the whole running broker: a disk that is full or fails, and no descriptors left.

While it lasts nothing is sent upstream and no right is given; when it is over the broker goes on
by itself, and the trail is whole.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from tests.components.process import no_descriptors
from tests.fakes.wire import wire
from tests.integration.site import Site, Traffic, site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.components.faults import Faults
    from tests.fakes.wire import Wire

FAILURES: Final = (("sync", errno.EIO), ("write", errno.EIO), ("write", errno.ENOSPC))
UNRECORDED: Final = (503, "audit_unavailable")


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a small file system at `place`; skip where that is not ours to do."""
    place.mkdir(mode=0o700, parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Take all the space that is left, and give it back."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        path.unlink()


async def lasts(place: Site, traffic: Traffic) -> None:
    """Wait until nothing is let through any more, and see that this is so for a while."""

    def shut() -> bool:
        latest = sorted(traffic.answered)[-40:]
        return {traffic.answered[number] for number in latest} == {UNRECORDED}

    # What still fitted on the disk was let through, and is on record.
    await place.until(shut, "every request to be refused")
    effects = len(place.seen)
    await asyncio.sleep(0.7)
    assert shut()
    assert [one for one in place.seen[effects:] if one.method != "GET"] == []


async def goes_on(place: Site, traffic: Traffic) -> None:
    """Wait until agents are served again, with no help."""
    before = max(traffic.answered)
    await place.until(
        lambda: (
            len([n for n, a in traffic.answered.items() if n > before and a == (200, None)]) > 40
        ),
        "agents to be served again",
    )
    assert await place.present(place.proof()) == 200
    await place.until(lambda: place.get("/readyz").json()["status"] == "ok", "all to be well")


def judge(place: Site, traffic: Traffic) -> None:
    """Hold what agents were told and what the upstream saw against the trail."""
    place.verify()
    assert place.unrecorded == []
    answered = [n for n, (status, _) in traffic.answered.items() if status == 200]
    assert all(place.tells_of(traffic.path(n), traffic.method(n)) for n in answered)
    refused = [n for n, answer in traffic.answered.items() if answer == UNRECORDED]
    posts = {traffic.path(number) for number in refused if traffic.method(number) == "POST"}
    assert posts
    assert posts.isdisjoint(one.path for one in place.seen), "refused, and sent all the same"
    notes = [str(one.get("detail")) for one in place.records() if one["action"] == "audit.resume"]
    assert any("records were refused" in note for note in notes)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [1, 2])
async def test_a2_r6_the_disk_is_full(tmp_path: Path, workers: int) -> None:
    with small_disk(tmp_path / "broker" / "home", "6m"):
        async with site(tmp_path, workers=workers) as place, place.broker():
            traffic = Traffic(place, await place.token())
            async with traffic.flowing():
                await place.until(lambda: len(traffic.answered) > 40, "traffic")
                with filled(place.home.path / "data"):
                    await lasts(place, traffic)
                    assert await place.present(place.proof()) == 503
                    assert place.get("/readyz").status_code == 503
                await goes_on(place, traffic)
            await asyncio.to_thread(judge, place, traffic)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("syncs", ["kernel", "thread"])
async def test_a2_the_trail_s_disk_fails(tmp_path: Path, faults: Faults, syncs: str) -> None:
    if syncs == "thread":
        faults.deny_aio(errno.EPERM)
    async with site(tmp_path, environment=faults.environment) as place, place.broker():
        traffic = Traffic(place, await place.token())
        async with traffic.flowing():
            await place.until(lambda: len(traffic.answered) > 40, "traffic")
            for call, error in FAILURES:
                with faults.failing(call, "/data/audit/", error):
                    await lasts(place, traffic)
                    assert await place.present(place.proof()) == 503
                await goes_on(place, traffic)
        await asyncio.to_thread(judge, place, traffic)


def health(place: Site) -> Mapping[str, str]:
    """What /readyz says of the database."""
    state: Mapping[str, str] = place.get("/readyz").json()["checks"]["storage"]
    return state


@pytest.mark.timeout(120)
async def test_a2_the_database_s_disk_fails(tmp_path: Path, faults: Faults) -> None:
    """No right is given that could not be stored; what was given before can be used and judged."""
    async with site(tmp_path, environment=faults.environment) as place, place.broker():
        token = await place.token()
        for call, error in FAILURES:
            with faults.failing(call, "/data/broker.db", error):
                assert [(await place.present(place.proof())) for _ in range(3)] == [503] * 3
                assert await place.call(token, "POST", "/v1/x") == (200, None)
                issued = [one for one in place.records() if one["action"] == "token.exchange"]
                assert issued[-1]["decision"] == "error"
                assert health(place)["state"] == "degraded"
                assert "no token is issued" in health(place)["reason"]
            assert health(place) == {"state": "ok"}
            assert await place.present(place.proof()) == 200
            assert await place.call(token, "POST", "/v1/x") == (200, None)
        held = json.loads(await asyncio.to_thread(place.home.run, "sessions", "--json"))
        assert len(held) == 1 + len(FAILURES), "one from before and one after each, none between"
        await asyncio.to_thread(place.verify)


@pytest.mark.timeout(120)
async def test_r6_without_descriptors_nothing_is_half_done(tmp_path: Path) -> None:
    """The control plane, the store, the trail and the policy without one descriptor to be had."""
    async with site(tmp_path) as place, place.broker() as process:
        token = await place.token()
        url = place.home.control_url
        policy = place.home.path / "policies" / "integration.yaml"

        async def post(connection: Wire, path: str) -> int:
            await connection.send(place.head(token, "POST", path, "Content-Length: 0"))
            return (await connection.response(b"POST")).status

        async with wire(place.port) as connection, httpx.AsyncClient(trust_env=False) as kept:
            assert (await kept.get(f"{url}/readyz")).json()["status"] == "ok"
            assert [await post(connection, f"/v1/a/{number}") for number in range(20)] == [200] * 20
            with no_descriptors(process.pid):
                policy.write_text(policy.read_text() + "# changed, and the same\n")
                statuses = set()
                for number in range(30):
                    statuses.add(await post(connection, f"/v1/b/{number}"))
                    await asyncio.sleep(0.05)
                assert statuses <= {200, 503}, "the connection that there was is served or told"
                with pytest.raises((httpx.TransportError, OSError)):
                    await place.present(place.proof())
                assert (await kept.get(f"{url}/readyz")).status_code in {200, 503}
            await place.until(lambda: place.get("/readyz").json()["status"] == "ok", "recovery")
        assert await place.present(place.proof()) == 200
        assert await place.call(token, "POST", "/v1/c") == (200, None)
        assert place.unrecorded == []
        await asyncio.to_thread(place.verify)
        loads = [one for one in place.records() if one["action"] == "policy.load"]
        assert {one["policy_version"] for one in loads} == {loads[0]["policy_version"]}
