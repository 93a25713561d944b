"""Build the wheel, see that it holds what it should, and use it where nothing else is installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DATA: Final = {"policies/catalogue": "broker/_data/catalogue"}
IMPORT_EVERYTHING: Final = """
import importlib, pkgutil, broker, providers
from broker.resources import data_path
NEEDS_AN_EXTRA = {
    f"broker.terraform.{name}" for name in ("provider", "resources", "shapes", "values")
}
for package in (broker, providers):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in NEEDS_AN_EXTRA:
            importlib.import_module(module.name)
print(len(list(data_path("catalogue").iterdir())))
"""


def sources(*folders: str) -> set[str]:
    """Return the project's files under these folders, what git ignores left out."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}


def expected() -> set[str]:
    """Return what the wheel must hold besides its own metadata."""
    files = sources("broker", "providers")
    for origin, target in DATA.items():
        files |= {target + name.removeprefix(origin) for name in sources(origin)}
    return files


def build(directory: Path) -> Path:
    """Build the wheel into `directory` and return it."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (wheel,) = directory.glob("*.whl")
    return wheel


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed; show its output and end if it fails."""
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Check the wheel; exit 1 naming what is wrong with it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wheel = build(directory)
        with zipfile.ZipFile(wheel) as archive:
            held = {item for item in archive.namelist() if ".dist-info/" not in item}
        if held != expected():
            sys.exit(
                f"the wheel lacks {sorted(expected() - held)} "
                f"and should not hold {sorted(held - expected())}"
            )
        venv.create(directory / "venv", with_pip=True)
        bin_folder = directory / "venv" / "bin"
        pip = (
            bin_folder / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--quiet",
        )
        run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock")
        run(*pip, "--no-index", "--no-deps", wheel)
        catalogue = run(bin_folder / "python", "-I", "-c", IMPORT_EVERYTHING, cwd=directory)
        version = run(bin_folder / "broker", "--version", cwd=directory)
        provider = subprocess.run(
            [bin_folder / "terraform-provider-broker"],
            cwd=directory,
            check=False,
            capture_output=True,
            text=True,
        )
        if "pip install 'agent-token-broker[terraform]'" not in provider.stderr:
            sys.exit(f"terraform-provider-broker does not say what it needs: {provider}")
        sys.stdout.write(f"{wheel.name}: {len(held)} files, {catalogue.strip()} in the catalogue\n")
        sys.stdout.write(version)


if __name__ == "__main__":
    main()
