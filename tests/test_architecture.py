"""What the layout promises and no linter sees.

Import directions are kept by import-linter, docstrings by ruff; both run in `make check`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
MODULES: Final = sorted(
    path.relative_to(ROOT)
    for package in ("broker", "providers")
    for path in ROOT.glob(f"{package}/**/*.py")
)
CODE: Final = [path for path in MODULES if path.name != "__init__.py"]
TESTED_ELSEWHERE: Final[dict[str, str]] = {}
"""Modules without a test file of their own, each with the reason."""

MAX_FILE_LINES: Final = 400
MAX_FUNCTION_LINES: Final = 60

NEVER_WRITTEN: Final = {
    "a package registry's host": re.compile(
        r"\b(?:[\w-]+\.)*(?:pypi|npmjs|pythonhosted)\.(?:com|org)\b"
    ),
    "a path of somebody's machine": re.compile(r"(?<![\w.}-])/(?:home|opt|root|Users|work)/\w"),
}


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def _test_file(module: Path) -> Path:
    return ROOT / "tests" / module.parent / f"test_{module.name}"


def _is_interface(module: Path) -> bool:
    names = ("denial", "signing", "state")
    contracts = {Path(f"providers/{name}.py") for name in names}
    return module.name == "base.py" or module in contracts


@pytest.mark.parametrize("module", CODE, ids=str)
def test_each_module_has_its_test_file(module: Path) -> None:
    if not _is_interface(module) and str(module) not in TESTED_ELSEWHERE:
        assert _test_file(module).is_file()


def test_no_module_is_excused_without_need() -> None:
    for excused in TESTED_ELSEWHERE:
        assert (ROOT / excused).is_file(), f"{excused} is gone; so should its excuse be"
        assert not _test_file(Path(excused)).is_file(), f"{excused} has a test file now"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_files_and_functions_stay_small(module: Path) -> None:
    source = (ROOT / module).read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_public_name_is_excused_from_its_docstring(module: Path) -> None:
    assert not re.search(r"noqa:[^#]*\bD\d", (ROOT / module).read_text())


def test_every_contract_covers_all_there_is() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert set(contracts["root_packages"]) == {path.parts[0] for path in MODULES}
    (flow,) = [item for item in contracts["contracts"] if item["type"] == "layers"]
    assert flow["exhaustive"]
    assert not [layer for layer in flow["layers"] if "(" in layer]


def test_the_locks_hold_every_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"]
    groups = {
        name: [item for item in group if isinstance(item, str)]
        for name, group in project["dependency-groups"].items()
    }
    for lock, requirements in (
        ("requirements.lock", declared),
        ("requirements-dev.lock", declared + groups["dev"] + groups["compile"]),
        ("requirements-compile.lock", declared + groups["compile"] + groups["build"]),
        ("requirements-build.lock", groups["build"]),
        ("requirements-bench.lock", groups["bench"]),
    ):
        locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
        names = {re.split(r"[^\w-]", item, maxsplit=1)[0].lower() for item in requirements}
        assert names <= locked, f"run `make lock`: {lock} lacks {sorted(names - locked)}"


def test_nothing_tracked_depends_on_one_machine_or_registry() -> None:
    found = []
    for path in _tracked():
        try:
            text = path.read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [
            f"{path.relative_to(ROOT)}: {what}: {match[0]}"
            for what, pattern in NEVER_WRITTEN.items()
            for match in pattern.finditer(text)
        ]
    assert not found
