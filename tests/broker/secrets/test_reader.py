from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError, SecretUnavailable
from broker.secrets.base import SecretValue
from broker.secrets.embedded import EmbeddedBackend
from broker.secrets.env import EnvBackend
from broker.secrets.file import FileBackend
from broker.secrets.reader import RETRY_AFTER, ProviderSecrets, Secrets
from providers.base import ProviderError, Secret

DOWN = SecretUnavailable("the store is down", retryable=True)
REFUSED = SecretUnavailable("there is no such secret")


class Backend:
    """An outer store that the test makes slow, down or deny."""

    def __init__(self) -> None:
        self.scheme = "test"
        self.value = b"one"
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: Counter[str] = Counter()
        self.closed = False

    def check(self, rest: str) -> None:
        if not rest.isalnum():
            raise ConfigurationError("expected test:<name>")

    async def read(self, rest: str) -> SecretValue:
        self.asked[rest] += 1
        value = self.value
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return SecretValue(Secret(value), 1)

    async def close(self) -> None:
        self.closed = True

    async def is_asked(self, times: int) -> None:
        while self.asked.total() < times:  # noqa: ASYNC110 - polls a counter, without a clock
            await asyncio.sleep(0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secrets(backend: Backend, clock: Clock) -> Secrets:
    return Secrets([backend], fresh_for=10, stale_for=300, clock=clock)


async def test_a_value_is_fresh_for_its_time(
    secrets: Secrets, backend: Backend, clock: Clock
) -> None:
    assert (await secrets.read("test:a")).reveal() == b"one"
    backend.value = b"two"
    clock.now += 9.9
    assert (await secrets.read("test:a")).reveal() == b"one"
    clock.now += 0.1
    assert (await secrets.read("test:a")).reveal() == b"two"
    assert backend.asked == {"a": 2}


async def test_references_do_not_mix(secrets: Secrets, backend: Backend) -> None:
    await secrets.read("test:a")
    backend.value = b"two"
    assert (await secrets.read("test:b")).reveal() == b"two"
    assert (await secrets.read("test:a")).reveal() == b"one"


async def test_many_readers_make_one_fetch(secrets: Secrets, backend: Backend) -> None:
    backend.gate.clear()
    readers = [asyncio.create_task(secrets.read("test:a")) for _ in range(50)]
    await backend.is_asked(1)
    backend.gate.set()
    assert {(await reader).reveal() for reader in readers} == {b"one"}
    assert backend.asked == {"a": 1}


async def test_a_reader_that_gives_up_ends_nothing_for_others(
    secrets: Secrets, backend: Backend
) -> None:
    backend.gate.clear()
    first, second = (asyncio.create_task(secrets.read("test:a")) for _ in range(2))
    await backend.is_asked(1)
    first.cancel()
    await asyncio.sleep(0)
    backend.gate.set()
    assert (await second).reveal() == b"one"
    assert first.cancelled()
    assert backend.asked == {"a": 1}


async def test_a_failure_that_nobody_waits_for_is_not_lost_in_a_warning(
    secrets: Secrets, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.gate.clear()
    backend.failure = REFUSED
    reader = asyncio.create_task(secrets.read("test:a"))
    await backend.is_asked(1)
    reader.cancel()
    backend.gate.set()
    await asyncio.gather(reader, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert not caplog.records


async def test_the_last_value_stands_in_while_the_backend_is_down(
    secrets: Secrets, backend: Backend, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await secrets.read("test:a")
    backend.failure = DOWN
    clock.now += 10
    with caplog.at_level(logging.WARNING):
        assert (await secrets.read("test:a")).reveal() == b"one"
    assert "test:a: using the value of 10 s ago: the store is down" in caplog.text
    assert (await secrets.read("test:a")).reveal() == b"one"
    assert backend.asked == {"a": 2}  # it is not asked for every request while it is down
    clock.now += RETRY_AFTER
    await secrets.read("test:a")
    assert backend.asked == {"a": 3}


async def test_the_stand_in_ends_at_the_stated_bound(
    secrets: Secrets, backend: Backend, clock: Clock
) -> None:
    await secrets.read("test:a")
    backend.failure = DOWN
    clock.now += 299.9
    assert (await secrets.read("test:a")).reveal() == b"one"
    clock.now += 0.1
    for _ in range(2):
        with pytest.raises(SecretUnavailable, match="the store is down"):
            await secrets.read("test:a")


async def test_a_backend_that_is_back_is_believed_at_once(
    secrets: Secrets, backend: Backend, clock: Clock
) -> None:
    await secrets.read("test:a")
    backend.failure = DOWN
    clock.now += 20
    await secrets.read("test:a")
    backend.failure, backend.value = None, b"two"
    clock.now += RETRY_AFTER
    assert (await secrets.read("test:a")).reveal() == b"two"


async def test_a_refusal_ends_the_use_of_a_value(
    secrets: Secrets, backend: Backend, clock: Clock
) -> None:
    await secrets.read("test:a")
    backend.failure = REFUSED
    clock.now += 10
    with pytest.raises(SecretUnavailable, match="no such secret"):
        await secrets.read("test:a")
    backend.failure = DOWN
    with pytest.raises(SecretUnavailable, match="down"):
        await secrets.read("test:a")


async def test_nothing_stands_in_for_what_was_never_read(
    secrets: Secrets, backend: Backend
) -> None:
    backend.failure = DOWN
    with pytest.raises(SecretUnavailable, match="down"):
        await secrets.read("test:a")
    backend.failure = None
    assert (await secrets.read("test:a")).reveal() == b"one"


@pytest.mark.parametrize("reference", ["test:a", None])
async def test_invalidate_forgets(
    secrets: Secrets, backend: Backend, reference: str | None
) -> None:
    await secrets.read("test:a")
    backend.value = b"two"
    secrets.invalidate(reference)
    assert (await secrets.read("test:a")).reveal() == b"two"


async def test_a_fetch_under_way_does_not_bring_back_what_was_forgotten(
    secrets: Secrets, backend: Backend
) -> None:
    backend.gate.clear()
    early = asyncio.create_task(secrets.read("test:a"))
    await backend.is_asked(1)
    secrets.invalidate()
    backend.value = b"two"
    late = asyncio.create_task(secrets.read("test:a"))
    await backend.is_asked(2)
    backend.gate.set()
    assert (await late).reveal() == b"two"
    assert (await early).reveal() == b"one"
    assert (await secrets.read("test:a")).reveal() == b"two"


async def test_closing_forgets_ends_fetches_and_closes_backends(
    secrets: Secrets, backend: Backend
) -> None:
    backend.gate.clear()
    reader = asyncio.create_task(secrets.read("test:a"))
    await backend.is_asked(1)
    await secrets.close()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert backend.closed


async def test_providers_see_failures_of_their_own_kind(secrets: Secrets, backend: Backend) -> None:
    reader = ProviderSecrets(secrets)
    assert (await reader.read("test:a")).reveal() == b"one"
    for failure in (DOWN, REFUSED):
        backend.failure = failure
        with pytest.raises(ProviderError, match=str(failure)) as caught:
            await reader.read("test:b")
        assert caught.value.retryable is failure.retryable
        assert caught.value.untouched
    with pytest.raises(ProviderError, match="not a secret reference"):
        await reader.read("nonsense")


REAL = Secrets([EnvBackend({}), FileBackend(), EmbeddedBackend(None)])  # type: ignore[arg-type]
"""Backends whose `check` needs no store."""


@pytest.mark.parametrize("reference", ["env:KEY", "file:/run/key", "embedded:a/b@3"])
def test_check_takes_references_of_every_scheme(reference: str) -> None:
    REAL.check(reference)


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("embeded:stripe", r"did you mean 'embedded'\?"),
        ("envs:KEY", r"did you mean 'env'\?"),
        ("sk_live_51HxyzTheKeyItself", "a secret itself never stands in a policy"),
        ("https://user:hunter2@example.com", "expected one of env:..., file:..., embedded:..."),
        ("env:", "not a secret reference"),
        ("env", "not a secret reference"),
        (":KEY", "not a secret reference"),
        ("", "not a secret reference"),
        ("ENV:KEY", "not a secret reference"),
        ("env:not a name", "expected env:<NAME>"),
    ],
)
def test_check_refuses_what_is_no_reference_without_quoting_it(reference: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint) as caught:
        REAL.check(reference)
    assert len(reference) <= 5 or reference not in str(caught.value)


@given(st.text(max_size=80) | st.from_regex(r"\A(env|file|embedded):[ -~]{0,60}\Z"))
def test_every_reference_is_judged_and_only_plain_ones_pass(reference: str) -> None:
    try:
        REAL.check(reference)
    except ConfigurationError:
        return
    scheme, _, rest = reference.partition(":")
    assert scheme in {"env", "file", "embedded"}
    assert rest
    assert "\0" not in rest
    assert ".." not in rest.split("/")
