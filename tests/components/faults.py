"""Failing disks for a program of ours: calls on chosen files fail as long as a test wants."""

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

    @contextmanager
    def failing(self, call: str, part: str, error: int) -> Iterator[None]:
        """Have a call (`sync` or `write`) on files whose path has `part` fail with an `errno`."""
        fault = self.directory / call
        whole = self.directory / f"{call}.new"
        whole.write_text(f"{error} {part}")
        whole.rename(fault)  # never seen half written
        try:
            yield
        finally:
            fault.unlink()


@pytest.fixture(scope="session")
def fault_library(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail, compiled."""
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
