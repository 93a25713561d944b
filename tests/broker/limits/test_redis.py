from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond

from broker.errors import LimitsUnavailable
from broker.files import create_private
from broker.limits.base import Ticket
from broker.limits.redis import KEY_PREFIX, PasswordFile, RedisCounts
from tests.components.process import free_port
from tests.components.redis import running_redis
from tests.contracts.counts import (
    OpenCounts,
    SharedCountsContract,
    burst,
    key,
    passed,
    place,
    rate,
    rated,
    refused,
    settled,
    taken,
    total,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.gate import Gate
    from tests.components.redis import Redis
    from tests.components.tls import TestAuthority

DOCUMENTED_RIGHTS = f"~{KEY_PREFIX}* -@all +@read +@write +@scripting +@connection +time"
PASSWORD = "canary-redis-password-5b1c"


class Opens(Protocol):
    """Make counts that are closed at the end of the test, as `RedisCounts` does."""

    def __call__(self, url: str, **options: Any) -> RedisCounts: ...


@pytest.fixture
async def sharing() -> AsyncIterator[Opens]:
    opened: list[RedisCounts] = []

    def open_one(url: str, **options: Any) -> RedisCounts:
        opened.append(RedisCounts(url, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.close()


@pytest.fixture
def counts(redis: Redis, sharing: Opens) -> RedisCounts:
    return sharing(redis.url)


class TestRedisCounts(SharedCountsContract):
    @pytest.fixture
    def open_counts(self, redis: Redis, sharing: Opens) -> OpenCounts:
        async def open_one() -> RedisCounts:
            return sharing(redis.url)

        return open_one


async def test_the_places_of_a_broker_that_died_are_free_after_a_while(
    redis: Redis, sharing: Opens
) -> None:
    dead, alive = (sharing(redis.url, held_for=2.0) for _ in range(2))
    quota = place(2)
    assert len(passed(await burst(dead, quota, 3))) == 2
    assert refused(await taken(alive, quota)).kind == "concurrent"
    await asyncio.sleep(2.1)
    assert len(passed(await burst(alive, quota, 3))) == 2


async def test_the_places_of_a_broker_that_lives_are_kept(redis: Redis, sharing: Opens) -> None:
    keeper, other = (sharing(redis.url, held_for=1.2) for _ in range(2))
    quota = place(1)
    keeping = asyncio.create_task(keeper.keep())
    held = await taken(keeper, quota)
    assert isinstance(held, Ticket)
    for _ in range(10):
        await asyncio.sleep(0.2)
        assert refused(await taken(other, quota)).kind == "concurrent"
    keeper.give_back(held)
    await settled(other, quota)
    keeping.cancel()


async def test_a_server_that_lost_its_scripts_is_given_them_again(
    counts: RedisCounts, redis: Redis
) -> None:
    quota = rated(rate(RateLimitItemPerMinute(2)))
    assert isinstance(await taken(counts, quota), Ticket)
    redis.tell("SCRIPT", "FLUSH")
    assert isinstance(await taken(counts, quota), Ticket)
    assert refused(await taken(counts, quota)).kind == "rate"


async def test_places_that_come_back_together_go_back_together(
    component: Gate, sharing: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, each would wait until the server has answered for all before it."""
    # All of a burst wait from the start for one of a few connections.
    monkeypatch.setattr("broker.limits.redis._PATIENCE", 30.0)

    def calls(server: Redis) -> int:
        counted = re.search(r"cmdstat_zrem:calls=(\d+)", server.tell("INFO", "commandstats"))
        return int(counted[1]) if counted else 0

    def asked(server: Redis) -> int:
        counted = re.findall(
            r"cmdstat_(?:evalsha|eval):calls=(\d+)", server.tell("INFO", "commandstats")
        )
        return sum(map(int, counted))

    with running_redis(component) as server:
        counts, quota = sharing(server.url), place(900)
        held = passed(await burst(counts, quota, 900))
        before = asked(server)
        for ticket in held:
            counts.give_back(ticket)
        async with asyncio.timeout(30):
            while calls(server) < len(held):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
        assert asked(server) - before <= 4
        assert len(passed(await burst(counts, quota, 901))) == 900


async def test_nothing_is_kept_for_ever(counts: RedisCounts, redis: Redis) -> None:
    under = key("total")
    assert isinstance(await taken(counts, rated(rate(RateLimitItemPerMinute(2), under))), Ticket)
    assert isinstance(await taken(counts, place(2, under)), Ticket)
    assert isinstance(await taken(counts, total(2, f"{under}/jti")), Ticket)
    names = redis.tell("KEYS", f"{KEY_PREFIX}*{under}*").split()
    assert len(names) == 3
    assert all(0 < int(redis.tell("TTL", name)) <= 90_000 for name in names)


async def test_without_the_server_nothing_is_let_through_and_with_it_again_all_is_well(
    component: Gate, sharing: Opens
) -> None:
    quotas = (rated(rate(RateLimitItemPerMinute(9))), place(9), total(9, key("total")))
    with running_redis(component) as server:
        counts = sharing(server.url)
        held = await taken(counts, quotas[1])
        assert isinstance(held, Ticket)
        server.kill()
        for quota in quotas:
            with pytest.raises(LimitsUnavailable, match=r"limits\.url cannot count now"):
                await taken(counts, quota)
        with pytest.raises(LimitsUnavailable):
            await counts.check()
        counts.give_back(held)
    with running_redis(component, port=server.port):
        await counts.check()
        for quota in quotas:
            assert isinstance(await taken(counts, quota), Ticket)


async def test_a_server_that_takes_no_writes_is_not_well(component: Gate, sharing: Opens) -> None:
    with running_redis(component) as server:
        counts = sharing(server.url)
        await counts.check()
        server.tell("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(LimitsUnavailable):
            await taken(counts, place(1))
        with pytest.raises(LimitsUnavailable, match=r"limits\.url cannot count now"):
            await counts.check()
        server.tell("CONFIG", "SET", "min-replicas-to-write", "0")
        await counts.check()
        names = server.tell("KEYS", "*").split()
        assert all(int(server.tell("TTL", name)) > 0 for name in names)


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-random"])
async def test_a_server_that_may_forget_counts_is_not_well(
    component: Gate, sharing: Opens, tmp_path: Path, policy: str
) -> None:
    path = tmp_path / "password"
    create_private(path, PASSWORD.encode())
    user = ("--user", "broker", "on", f">{PASSWORD}", *DOCUMENTED_RIGHTS.split())
    with running_redis(component, *user) as server:
        counts = sharing(server.url)
        server.tell("CONFIG", "SET", "maxmemory-policy", policy)
        await counts.check()  # of memory without bounds nothing is dropped
        server.tell("CONFIG", "SET", "maxmemory", "1gb")
        with pytest.raises(LimitsUnavailable, match=f"may forget.*{policy}.*noeviction"):
            await counts.check()
        blind = sharing(server.url, password=PasswordFile(path, "broker"))
        await blind.check()  # who may not look is told nothing
        server.tell("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await counts.check()


async def test_r5_a_clock_that_is_set_back_shuts_no_window_for_longer_than_it_is(
    counts: RedisCounts, redis: Redis
) -> None:
    window = rate(RateLimitItemPerSecond(2, 4))
    assert len(passed(await burst(counts, rated(window), 3))) == 2
    later = int(redis.tell("TIME").split()[0]) + 7200
    for place_in_list in ("0", "1"):
        redis.tell("LSET", KEY_PREFIX + window.count_key, place_in_list, f"{later}.5")
    assert refused(await taken(counts, rated(window))).wait == 4
    await asyncio.sleep(4.05)
    assert len(passed(await burst(counts, rated(window), 3))) == 2


async def test_a_server_that_does_not_answer_is_not_waited_for(sharing: Opens) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    counts = sharing(f"redis://127.0.0.1:{port}")
    async with asyncio.timeout(15):
        with pytest.raises(LimitsUnavailable, match="TimeoutError"):
            await taken(counts, place(1))
    server.close()


@pytest.mark.parametrize("answer", [b"$abc\r\n", b"HTTP/1.1 400\r\n", b":" + b"1" * 200_000])
async def test_a_server_that_is_none_lets_nothing_through(sharing: Opens, answer: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    counts = sharing(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(LimitsUnavailable, match=r"limits\.url cannot count now"):
        await taken(counts, place(1))
    with pytest.raises(LimitsUnavailable):
        await counts.check()
    server.close()


async def test_the_password_is_the_files_and_stands_nowhere_else(
    component: Gate, sharing: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = tmp_path / "password"
    create_private(path, b"wrong-" + PASSWORD.encode() + b"\n")
    with running_redis(component, "--requirepass", PASSWORD) as server:
        counts = sharing(server.url, password=PasswordFile(path, None))
        with pytest.raises(LimitsUnavailable) as refusal:
            await taken(counts, place(1))
        path.write_bytes(PASSWORD.encode() + b"\n")
        assert isinstance(await taken(counts, place(1)), Ticket)
        path.write_bytes(b"")
        other = sharing(server.url, password=PasswordFile(path, None))
        with pytest.raises(LimitsUnavailable, match="write the password to it"):
            await taken(other, place(1))
        path.chmod(0o644)
        with pytest.raises(LimitsUnavailable, match=r"password"):
            await taken(sharing(server.url, password=PasswordFile(path, None)), place(1))
    assert PASSWORD not in f"{refusal.value!r} {refusal.value.__cause__!r} {counts!r} {other!r}"
    assert PASSWORD not in caplog.text


async def test_a_user_of_the_server_logs_in_by_name(
    component: Gate, sharing: Opens, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    create_private(path, PASSWORD.encode())
    rights = DOCUMENTED_RIGHTS.split()
    user = ("--user", "broker", "on", f">{PASSWORD}", *rights, "--user", "default", "off")
    with running_redis(component, *user) as server:
        counts = sharing(server.url, password=PasswordFile(path, "broker"))
        assert isinstance(await taken(counts, place(1)), Ticket)
        with pytest.raises(LimitsUnavailable):
            await taken(sharing(server.url, password=PasswordFile(path, None)), place(1))


async def test_nobody_counts_as_another_user_or_elsewhere_once_a_password_was_missing(
    component: Gate, sharing: Opens, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    create_private(path, PASSWORD.encode())
    quota = rated(rate(RateLimitItemPerMinute(1)))
    user = ("--user", "broker", "on", f">{PASSWORD}", *DOCUMENTED_RIGHTS.split())
    with running_redis(component, *user) as server:  # where anybody may come in without one
        url = server.url.removesuffix("/0") + "/3"
        counts, other = (sharing(url, password=PasswordFile(path, "broker")) for _ in range(2))
        assert isinstance(await taken(other, quota), Ticket)
        path.write_bytes(b"")
        with pytest.raises(LimitsUnavailable, match="write the password to it"):
            await taken(counts, quota)
        path.write_bytes(PASSWORD.encode())
        assert refused(await taken(counts, quota)).kind == "rate"


async def test_a_socket_will_do(redis: Redis, sharing: Opens) -> None:
    counts, quota = sharing(f"unix://{redis.socket}"), rated(rate(RateLimitItemPerMinute(1)))
    assert len(passed(await burst(counts, quota, 40))) == 1


async def test_tls_is_verified(
    component: Gate, sharing: Opens, tls_authority: TestAuthority
) -> None:
    port = free_port()
    certificate = tls_authority.certificate("127.0.0.1")
    options = (
        *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
        *(
            "--tls-cert-file",
            str(certificate.chain_file),
            "--tls-key-file",
            str(certificate.key_file),
        ),
        *("--tls-ca-cert-file", str(tls_authority.ca_file)),
    )
    with running_redis(component, *options, port=port):
        counts = sharing(f"rediss://127.0.0.1:{port}", ca_file=tls_authority.ca_file)
        assert isinstance(await taken(counts, place(1)), Ticket)
        stranger = sharing(f"rediss://127.0.0.1:{port}")
        with pytest.raises(LimitsUnavailable):
            await taken(stranger, place(1))
