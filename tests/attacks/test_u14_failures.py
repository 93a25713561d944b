"""U14: when things fail, no answer, log or record shows a secret, and no log a whole URL."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import pytest

from providers.base import ProviderError, Secret
from tests.components.process import free_port
from tests.fakes.gateway import KEY, policy_text
from tests.fakes.upstream import raw, recording_upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.components.tls import TestAuthority
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received

SERVICES = (b"api", b"keyed", b"basic", b"query", b"cookie", b"based")
SPELLINGS = (
    KEY,
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(b"account:" + KEY.encode()).decode(),
    KEY.encode().hex(),
    quote(KEY, safe=""),
)
# What an agent may have put into its request, and into no log.
PATH, QUERY = b"/v1/customers/cus_9s8d7f", b"email=jane%40example.com&sig=c2lnbmF0dXJl"
MINE = (PATH.decode(), QUERY.decode(), "jane", "c2lnbmF0dXJl", "cus_9s8d7f")


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that logs says all that it knows."""
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "broker", "providers"):
        caplog.set_level(logging.DEBUG, name)


async def fail_everywhere(gateway: GatewayBench) -> list[bytes]:
    """Make each service fail for a safe method and another; return all that an agent saw."""
    asyncio.get_running_loop().set_debug(True)
    seen = []
    for service in SERVICES:
        for method in (b"GET", b"POST"):
            target = b"/%b%b?%b" % (service, PATH, QUERY)
            async with gateway.connect() as wire:
                await wire.send(gateway.head(method, target, b"Connection: close"))
                head = await wire.head()  # and of the rest what comes before it is cut, if it is
                seen.append(head.head + await wire.reader.read(1 << 16))
    return seen


async def assert_silence(
    gateway: GatewayBench, seen: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(seen) == 2 * len(SERVICES)
    told = b"\n".join(seen).decode("latin-1")
    records = str(await gateway.records())
    for spelling in SPELLINGS:
        for where in (told, caplog.text, records):
            assert spelling not in where
    for part in MINE:
        assert part not in caplog.text
    assert "http://127.0.0.1" not in told
    assert "Traceback" not in told
    # What asyncio says of a handshake, and of the services of these tests, is nobody's secret.
    ours = [
        one
        for one in caplog.records
        if one.name != "asyncio" or (one.levelno > logging.WARNING and "creation" not in one.msg)
    ]
    assert [one.getMessage() for one in ours if one.exc_info] == []


class Fails(NamedTuple):
    """What a failure is made of; `stack` ends what it begins."""

    gateway: GatewayBench
    authority: TestAuthority
    stack: AsyncExitStack


async def _nobody_listens(at: Fails) -> None:
    at.gateway.upstream.port = free_port()
    at.gateway.load(policy_text())


async def _no_trust(at: Fails) -> None:
    context = at.authority.certificate("localhost").context()
    secure = await at.stack.enter_async_context(recording_upstream(context))
    at.gateway.upstream.port = secure.port
    at.gateway.load(policy_text("base_url: https://localhost:PORT, allow_private: true"))


async def _another_name(at: Fails) -> None:
    context = at.authority.certificate("elsewhere.test").context()
    secure = await at.stack.enter_async_context(recording_upstream(context))
    at.gateway.upstream.port = secure.port
    trusted = f"ca_file: {at.authority.ca_file}"
    at.gateway.load(
        policy_text(f"base_url: https://localhost:PORT, allow_private: true, {trusted}")
    )


async def _no_tls_there(at: Fails) -> None:
    at.gateway.load(
        policy_text(
            "base_url: https://localhost:PORT, allow_private: true, timeouts: {connect: 200ms}"
        )
    )


async def _hangs_up_in_the_handshake(at: Fails) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    at.stack.callback(server.close)
    at.gateway.upstream.port = server.sockets[0].getsockname()[1]
    at.gateway.load(policy_text("base_url: https://localhost:PORT, allow_private: true"))


async def _echoes_and_dies(at: Fails) -> None:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 100000\r\n\r\n" + received.head)
        with suppress(ConnectionError):
            await writer.drain()
        writer.transport.abort()

    at.gateway.upstream.answer = answer


async def _echoes_in_a_head_that_is_none(at: Fails) -> None:
    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        await raw(b"HTTP/1.1 200 OK\r\nX\x00: " + received.head)(received, writer)

    at.gateway.upstream.answer = answer


async def _provider_says_too_much(at: Fails) -> None:
    async def read(reference: str) -> Secret:
        raise ValueError(f"{reference}: {KEY}")

    at.gateway.secrets.read = read  # type: ignore[method-assign]


async def _provider_has_none(at: Fails) -> None:
    async def read(reference: str) -> Secret:
        raise ProviderError(f"{reference} is sealed", retryable=True)

    at.gateway.secrets.read = read  # type: ignore[method-assign]


async def _value_does_not_fit(at: Fails) -> None:
    at.gateway.secrets.values["env:KEY"] = KEY.encode() + b"\r\n"


@pytest.mark.parametrize(
    "fail",
    [
        _nobody_listens,
        _no_trust,
        _another_name,
        _no_tls_there,
        _hangs_up_in_the_handshake,
        _echoes_and_dies,
        _echoes_in_a_head_that_is_none,
        _provider_says_too_much,
        _provider_has_none,
        _value_does_not_fit,
    ],
    ids=lambda fail: fail.__name__.strip("_"),
)
async def test_u14_a_failure_shows_nothing(
    gateway: GatewayBench,
    tls_authority: TestAuthority,
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[Fails], Awaitable[None]],
) -> None:
    async with AsyncExitStack() as stack:
        await fail(Fails(gateway, tls_authority, stack))
        seen = await fail_everywhere(gateway)
    assert all(answer[:9] == b"HTTP/1.1 " and answer[9:10] == b"5" for answer in seen)
    await assert_silence(gateway, seen, caplog)


@pytest.mark.interpreted
@pytest.mark.parametrize(
    "place",
    [
        "broker.gateway.relay.written_head",
        "broker.gateway.relay.agent_lines",
        "broker.gateway.upstream.ResponseReader.read",
        "broker.gateway.pool.Pool.take",
        "broker.gateway.guard.Connector._connect",
        "broker.gateway.credentials.Credential",
        "broker.gateway.authorize.Authorization.decide",
    ],
)
async def test_u14_a_defect_shows_nothing(
    gateway: GatewayBench,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """An exception's text holds what the code at hand had in its hands."""

    def defect(*_: object, **__: object) -> None:
        raise RuntimeError(f"{KEY} {PATH.decode()}?{QUERY.decode()}")

    monkeypatch.setattr(place, defect)
    seen = await fail_everywhere(gateway)
    assert all(b"Broker-Error: internal_error" in answer for answer in seen), seen
    await assert_silence(gateway, seen, caplog)
    assert "RuntimeError at " in caplog.text
