"""What a peer is told, and what there is of it once it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Final

from bench.processes import MissingProgram

FOLDER: Final = Path(__file__).resolve().parent
ENVIRONMENT: Final = FOLDER.parent.parent / ".venv-bench"
"""Where `make bench` installs what `requirements-bench.lock` names."""


@dataclass(frozen=True)
class Setting:
    """Where a peer runs and what it enforces.

    `folder` is its own; `upstream` is the service's port and `key` its credential; `token` is the
    task token that will be presented, `jwks` the file with the keys that it is verified by,
    `rules` the file with what is allowed (`METHOD PATH`, one a line).
    """

    folder: Path
    core: int
    upstream: int
    key: str
    token: str
    jwks: Path
    rules: Path


@dataclass(frozen=True)
class Peer:
    """A running peer: its port, and every process that it needs."""

    port: int
    pids: tuple[int, ...]


def installed(name: str) -> str:
    """Return where a program of the peers' own environment is."""
    found = which(name, path=str(ENVIRONMENT / "bin"))
    if found is None:
        raise MissingProgram(f"{name} was not found in {ENVIRONMENT.name}: run `make bench`")
    return found
