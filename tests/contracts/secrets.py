"""What every secret backend must do. Subclass it and give the fixture `kept`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from broker.errors import ConfigurationError, SecretUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.secrets.base import SecretBackend

VALUE = b"canary-5f1c0e-value"
ROTATED = b"canary-77ab21-rotated"


@dataclass(frozen=True)
class Kept:
    """A backend that holds VALUE.

    `rest` refers to it; `absent` is well formed and refers to nothing; `malformed` are not of
    the scheme's form. `rotate` puts another value in its place, where the scheme can.
    """

    backend: SecretBackend
    rest: str
    absent: str
    malformed: tuple[str, ...]
    rotate: Callable[[bytes], Awaitable[object]] | None = None


class SecretBackendContract:
    """The tests; a subclass's own are for the quirks of its backend."""

    async def test_it_reads_what_is_kept(self, kept: Kept) -> None:
        value = await kept.backend.read(kept.rest)
        assert value.secret.reveal() == VALUE
        assert value.version >= 0

    async def test_it_reads_again(self, kept: Kept) -> None:
        first = await kept.backend.read(kept.rest)
        assert await kept.backend.read(kept.rest) == first

    async def test_it_reads_the_current_value(self, kept: Kept) -> None:
        if kept.rotate is None:
            return
        before = await kept.backend.read(kept.rest)
        await kept.rotate(ROTATED)
        after = await kept.backend.read(kept.rest)
        assert after.secret.reveal() == ROTATED
        assert after.version > before.version or after.version == 0

    async def test_what_is_absent_is_refused_for_good(self, kept: Kept) -> None:
        with pytest.raises(SecretUnavailable) as caught:
            await kept.backend.read(kept.absent)
        assert not caught.value.retryable
        assert len(str(caught.value)) > 20  # it says what and what to do

    async def test_check_takes_what_is_well_formed(self, kept: Kept) -> None:
        kept.backend.check(kept.rest)
        kept.backend.check(kept.absent)

    async def test_malformed_references_are_refused_and_not_quoted(self, kept: Kept) -> None:
        for rest in (*kept.malformed, "", "\n", "a\0b", "sk_live_51H/../../etc", "ключ ключ"):
            with pytest.raises(ConfigurationError, match=rf"expected {kept.backend.scheme}:") as e:
                kept.backend.check(rest)
            assert len(rest) < 3 or rest not in str(e.value)
            with pytest.raises(ConfigurationError):
                await kept.backend.read(rest)

    async def test_the_value_is_not_printed_or_logged(
        self, kept: Kept, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        value = await kept.backend.read(kept.rest)
        shown = f"{value} {value!r} {kept.backend!r} {vars(kept.backend)} {caplog.text}"
        assert VALUE.decode() not in shown

    async def test_closing_twice_is_fine(self, kept: Kept) -> None:
        await kept.backend.close()
        await kept.backend.close()
