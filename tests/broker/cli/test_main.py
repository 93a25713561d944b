from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from broker.cli import doctor
from broker.cli.main import PANELS, app

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.broker.cli.conftest import Commands

SLOW = ("cryptography", "fastapi", "httpx", "hvac", "jwt", "pydantic", "uvicorn", "uvloop", "yaml")


def test_help_names_every_command_in_its_panel(bare: Commands) -> None:
    text = bare.ok("--help").out
    for panel, names in PANELS.items():
        assert panel in text
        assert all(f" {name} " in text for name in names), panel
    assert "Other" not in text


@pytest.mark.parametrize("name", [name for names in PANELS.values() for name in names])
def test_each_command_explains_itself(bare: Commands, name: str) -> None:
    assert "Usage: broker" in bare.ok(name, "--help").out


def test_help_and_version_import_nothing_slow() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import broker.cli.main, sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not set(SLOW) & set(loaded)


def test_version(bare: Commands) -> None:
    assert bare.ok("--version").out.startswith("broker 0.")


def test_without_a_command_it_helps(bare: Commands) -> None:
    assert "Start with `broker dev`" in bare.run().out


def test_a_mistyped_command_ends_with_status_2(bare: Commands) -> None:
    ran = bare.run("docter")
    assert ran.status == 2
    assert "docter" in ran.err


def test_options_for_all_commands_may_stand_before_or_after(bare: Commands) -> None:
    other = bare.home.parent / "other"
    bare.ok("--home", str(other), "init", "--yes")
    assert bare.ok("--json", "--home", str(other), "agents").data[0]["name"] == "my-agent"
    assert bare.ok("agents", "--home", str(other), "--json").data[0]["name"] == "my-agent"
    assert not bare.home.exists()


def test_one_command_line_leaves_nothing_for_the_next(bare: Commands) -> None:
    bare.ok("--json", "--home", str(bare.home.parent / "other"), "init", "--yes")
    assert "A broker is set up in" in bare.ok("init", "--yes").out
    assert bare.home.exists()


def test_a_defect_shows_its_number_and_no_traceback(
    bare: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def broken(_: Callable[[], None]) -> None:
        raise RuntimeError("sk_live_0123456789abcdefghijkl")

    monkeypatch.setattr(doctor, "_findings", broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("crash")))
    result = CliRunner().invoke(app, ["doctor", "--home", str(bare.home)])
    assert result.exit_code == 70
    assert "incident" in result.stderr
    assert "RuntimeError" in result.stderr
    assert "sk_live" not in result.output
    assert "Traceback" not in result.output
