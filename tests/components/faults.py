"""Failing disks and wrong clocks for a program of ours, for as long as a test wants."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.components.gate import Gate

_SOURCE: Final = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Faults:
    """Faults of programs that run with `environment`."""

    library: Path
    directory: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program's environment must hold."""
        return {"LD_PRELOAD": str(self.library), "FAULTS": str(self.directory)}

    def set_clock(self, ahead: int) -> None:
        """Put the wall clock so many seconds ahead of the right time, or back where it is less."""
        self._tell("clock", str(ahead))

    def deny_aio(self, error: int) -> None:
        """Have the kernel refuse to sync by itself, as where a sandbox does not let it be asked."""
        self._tell("aio", str(error))

    def interrupt_aio(self) -> None:
        """Have a signal come whenever the result of such a sync is fetched."""
        self._tell("interrupt", "yes")

    @contextmanager
    def failing(self, call: str, part: str, error: int) -> Iterator[None]:
        """Have a call (`sync` or `write`) on files whose path has `part` fail with an `errno`."""
        self._tell(call, f"{error} {part}")
        try:
            yield
        finally:
            (self.directory / call).unlink()

    def _tell(self, name: str, text: str) -> None:
        whole = self.directory / f"{name}.new"
        whole.write_text(text)
        whole.rename(self.directory / name)  # never seen half written


@pytest.fixture(scope="session")
def fault_library(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that stands between a program and its system, compiled."""
    compiler = component.program("gcc", "apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def faults(fault_library: Path, tmp_path: Path) -> Faults:
    """Faults of one test; none at first."""
    directory = tmp_path / "faults"
    directory.mkdir()
    return Faults(fault_library, directory)
