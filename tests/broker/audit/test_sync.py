from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.audit import sync as module
from broker.audit.sync import KernelSync, SyncUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.components.faults import Faults

run: Final = partial(subprocess.run, check=True, capture_output=True, text=True)


@pytest.fixture
async def kernel() -> AsyncIterator[KernelSync]:
    kernel = KernelSync(asyncio.get_running_loop())
    yield kernel
    kernel.close()


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def ending() -> tuple[asyncio.Future[OSError | None], Any]:
    told: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    return told, told.set_result


async def test_it_tells_of_the_end_of_a_sync(kernel: KernelSync, descriptor: int) -> None:
    for _ in range(20):
        os.write(descriptor, b"x" * 10_000)
        told, tell = ending()
        kernel.begin(descriptor, tell)
        assert await asyncio.wait_for(told, 30) is None


async def test_it_tells_of_each_of_several(kernel: KernelSync, descriptor: int) -> None:
    os.write(descriptor, b"x")
    endings = [ending() for _ in range(module._AT_ONCE)]
    for _, tell in endings:
        kernel.begin(descriptor, tell)
    assert await asyncio.wait_for(asyncio.gather(*(told for told, _ in endings)), 30) == [
        None for _ in endings
    ]


async def test_a_file_may_be_closed_meanwhile(kernel: KernelSync, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x" * 1_000_000)
    told, tell = ending()
    kernel.begin(descriptor, tell)
    os.close(descriptor)
    assert await asyncio.wait_for(told, 30) is None


async def test_what_cannot_be_synced_is_refused_at_once(kernel: KernelSync) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(SyncUnavailable, match="EINVAL"):
            kernel.begin(writing, lambda _: None)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(SyncUnavailable, match="EBADF"):
        kernel.begin(writing, lambda _: None)


async def test_more_than_it_takes_at_once_is_refused(kernel: KernelSync, descriptor: int) -> None:
    os.write(descriptor, b"x" * 1_000_000)

    def begin_many() -> None:
        for _ in range(100_000):
            kernel.begin(descriptor, lambda _: None)

    with pytest.raises(SyncUnavailable):
        begin_many()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_of_the_disk_is_told_with_its_number(
    faults: Faults, tmp_path: Path, number: int
) -> None:
    program = Path(__file__).with_name("synced.py")
    command = [sys.executable, str(program), str(tmp_path / "file")]
    environment = {**os.environ, **faults.environment}
    with faults.failing("sync", "/file", number):
        assert run(command, env=environment).stdout == f"{number} {os.strerror(number)}"
    assert run(command, env=environment).stdout == "done"
    faults.deny_aio(errno.EPERM)
    assert run(command, env=environment).stdout not in {"", "done"}


def test_a_signal_that_comes_between_is_nothing(faults: Faults, tmp_path: Path) -> None:
    program = Path(__file__).with_name("synced.py")
    command = [sys.executable, str(program), str(tmp_path / "file")]
    faults.interrupt_aio()
    done = run(command, env={**os.environ, **faults.environment})
    assert (done.stdout, done.stderr) == ("done", "")


async def test_nothing_is_told_once_it_is_closed(descriptor: int) -> None:
    kernel = KernelSync(asyncio.get_running_loop())
    told, tell = ending()
    kernel.begin(descriptor, tell)
    kernel.close()
    await asyncio.sleep(0.05)
    assert not told.done()


async def test_a_system_that_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caio.linux_aio", None)
    with pytest.raises(SyncUnavailable):
        KernelSync(asyncio.get_running_loop())
