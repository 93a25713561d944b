"""Run `broker` commands in this process, on a home of the test's own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from broker.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


class Commands:
    """Run commands on the home `home`; standard input is no terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *arguments: str, stdin: str = "") -> Ran:
        """Run a command, whatever comes of it."""
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        assert "Traceback" not in result.output
        return Ran(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> Ran:
        """Run a command that must end well."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.status == 0, ran.err + ran.out
        return ran

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must end with status 1; return what it said."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.status == 1, ran.out
        return ran.err

    def files(self) -> dict[Path, bytes]:
        """Return all files of the home but what grows by itself, to compare before and after."""
        files = (path for path in self.home.rglob("*") if path.is_file())
        grows = self.home / "data"
        return {path: path.read_bytes() for path in files if not path.is_relative_to(grows)}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands for a home that is not there yet."""
    for name in [name for name in os.environ if name.startswith("BROKER_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("BROKER_HOME", str(home))
    return Commands(home)


@pytest.fixture
def broker(bare: Commands) -> Commands:
    """Commands for a home that `broker init` made."""
    bare.ok("init", "--yes")
    return bare
