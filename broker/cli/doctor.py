"""`broker doctor`: what is wrong with this broker, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import typer

from broker.cli import output
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from broker.app.checkup import Finding

_COLORS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("doctor")(doctor)


def doctor(*, home: output.HomeOption = None, json: output.JsonOption = False) -> None:
    """Look for what is wrong: files, keys, policy, secrets, issuers, Vault, clock, ports."""
    findings = asyncio.run(_findings(home))
    problems = sum(finding.state == "problem" for finding in findings)
    data = {
        "problems": problems,
        "findings": [
            {"subject": finding.subject, "state": finding.state, "text": finding.text}
            for finding in findings
        ],
    }

    def human() -> None:
        for finding in findings:
            _print(finding)
        told = "All is well." if not problems else f"{problems} to mend."
        typer.echo(typer.style(told, bold=True))

    output.emit(data, human, json)
    if problems:
        raise typer.Exit(1)


async def _findings(home: Path | None) -> list[Finding]:
    from broker.app.checkup import Finding, check_up

    try:
        settings = output.settings_from(home)
    except ConfigurationError as error:
        return [Finding("settings", "problem", line) for line in str(error).splitlines()]
    findings = [finding async for finding in check_up(settings)]
    # One cause may show in several places: each text once.
    return list({finding.text: finding for finding in reversed(findings)}.values())[::-1]


def _print(finding: Finding) -> None:
    state = typer.style(finding.state.ljust(7), fg=_COLORS[finding.state], bold=True)
    typer.echo(f"{state}  {finding.subject:<10}  {output.printable(finding.text)}")
