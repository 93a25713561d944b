"""Decide what a missing component means: a visible skip for a person, a failure in CI."""

from __future__ import annotations

import os
from shutil import which
from sysconfig import get_path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_SEARCH_PATH: Final = os.pathsep.join((get_path("scripts"), os.environ.get("PATH", os.defpath)))
_SKIP_MARK: Final = "component missing: "


class Gate:
    """Let tests through to the real components that are installed."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def program(self, name: str, remedy: str) -> str:
        """Return where a program is; the virtual environment's comes first."""
        return which(name, path=_SEARCH_PATH) or self._refuse(name, remedy)

    def folder(self, path: Path, remedy: str) -> Path:
        """Return `path` if it is a folder."""
        return path if path.is_dir() else self._refuse(path.name, remedy)

    def _refuse(self, name: str, remedy: str) -> NoReturn:
        reason = f"{_SKIP_MARK}{name} ({remedy})"
        if self._strict:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def component() -> Gate:
    """The gate that fixtures of real components pass through."""
    return Gate(strict=os.environ.get("CI", "").lower() in {"1", "true"})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count, by component, the tests that did not run for want of it."""
    counts: dict[str, int] = {}
    for report in terminalreporter.getreports("skipped"):
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        if _SKIP_MARK in reason:
            name = reason.split(_SKIP_MARK, 1)[1]
            counts[name] = counts.get(name, 0) + 1
    if counts:
        terminalreporter.section("tests that need a missing component", yellow=True)
        for name, count in sorted(counts.items()):
            terminalreporter.line(f"{count} not run: {name}")
