from __future__ import annotations

import io
import json
import stat
from typing import TYPE_CHECKING

import pytest
import typer

from broker.cli import output
from broker.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_choices() -> None:
    output.start(None, json=False)


def test_emit_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": ["é"]}, lambda: typer.echo("for people"), json=True)
    assert json.loads(capsys.readouterr().out) == {"a": ["é"]}


def test_emit_leaves_people_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": 1}, lambda: typer.echo("for people"), json=False)
    assert capsys.readouterr().out == "for people\n"


def test_emit_heeds_the_option_before_the_commands_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.start(None, json=True)
    output.emit({"a": 1}, lambda: typer.echo("for people"), json=False)
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_table_aligns_and_escapes_what_could_steer_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.table(("name", "what"), [("a\x1b[2J", "x"), ("longer-name", "y\nz")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME         WHAT",
        "a\\x1b[2J     x",
        "longer-name  y\\nz",
    ]


def test_table_says_that_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name",), [], "No agents.")
    assert capsys.readouterr().out == "No agents.\n"


@pytest.mark.parametrize("text", ["\r", "\u202e", "\u2028", "\x00", "\ud800"])
def test_printable_leaves_one_line_of_plain_text(text: str) -> None:
    assert output.printable(f"a{text}b").isprintable()


def test_fail_says_what_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        output.fail(ConfigurationError("it is broken"), "mend it")
    printed = capsys.readouterr()
    assert ended.value.exit_code == 1
    assert printed.out == ""
    assert printed.err == "error: it is broken\nnext:  mend it\n"


def test_fail_tells_programs_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.start(None, json=True)
    with pytest.raises(typer.Exit):
        output.fail("it is broken")
    assert json.loads(capsys.readouterr().err) == {"error": "it is broken", "next_step": None}


def test_a_defect_is_kept_in_a_private_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKER_DEBUG", raising=False)
    output.start(tmp_path, json=False)
    with pytest.raises(typer.Exit) as ended:
        output.fail_unexpectedly(KeyError("boom"))
    (log,) = tmp_path.glob("crash-*.log")
    printed = capsys.readouterr().err
    assert ended.value.exit_code == 70
    assert str(log) in printed
    assert "boom" not in printed
    assert "Traceback" not in printed
    assert "boom" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_defects_details_are_redacted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BROKER_DEBUG", raising=False)
    output.start(tmp_path, json=False)
    secret = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"
    with pytest.raises(typer.Exit):
        output.fail_unexpectedly(ValueError(f"Authorization: Bearer {secret}"))
    (log,) = tmp_path.glob("crash-*.log")
    assert secret not in log.read_text() + capsys.readouterr().err


def test_a_defect_is_shown_to_whoever_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_DEBUG", "1")
    with pytest.raises(typer.Exit):
        output.fail_unexpectedly(KeyError("boom"))
    assert "KeyError: 'boom'" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(InvalidRequest, match="say --yes"):
        output.confirm("End it all?")


@pytest.mark.parametrize(("typed", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_only_yes_goes_on(
    monkeypatch: pytest.MonkeyPatch, typed: str, *, goes_on: bool
) -> None:
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    if goes_on:
        output.confirm("End it all?")
    else:
        with pytest.raises(typer.Abort):
            output.confirm("End it all?")
