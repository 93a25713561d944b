from __future__ import annotations

import asyncio
import os
import sys

import pytest

from broker.errors import SecretUnavailable
from broker.secrets.env import EnvBackend
from tests.contracts.secrets import VALUE, Kept, SecretBackendContract


class TestEnvBackend(SecretBackendContract):
    @pytest.fixture
    def kept(self) -> Kept:
        return Kept(
            backend=EnvBackend({"STRIPE_KEY": VALUE.decode()}),
            rest="STRIPE_KEY",
            absent="OTHER_KEY",
            malformed=("1KEY", "A-B", "A=B", "A B", "A\n", "Ä", "x" * 129),
        )


async def test_an_empty_variable_is_no_secret() -> None:
    with pytest.raises(SecretUnavailable, match="not set or empty"):
        await EnvBackend({"KEY": ""}).read("KEY")


async def test_what_was_read_is_not_inherited_by_programs_started_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKEND_TEST_KEY", VALUE.decode())
    backend = EnvBackend()
    assert (await backend.read("BACKEND_TEST_KEY")).secret.reveal() == VALUE
    assert "BACKEND_TEST_KEY" not in os.environ
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import os; print(dict(os.environ))", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert b"PATH" in output
    assert VALUE not in output
    assert (await backend.read("BACKEND_TEST_KEY")).secret.reveal() == VALUE


async def test_bytes_that_are_no_text_survive() -> None:
    value = os.fsdecode(b"\xff\xfe")
    read = await EnvBackend({"KEY": value}).read("KEY")
    assert read.secret.reveal() == b"\xff\xfe"
