"""Terraform, run on a copy of this project's modules and examples."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.components.gate import Gate

SOURCES: Final = Path(__file__).resolve().parents[2] / "terraform"
PLUGINS: Final = "TERRAFORM_PLUGINS"
"""Names a folder of Terraform providers, where neither their registry nor a mirror that
Terraform knows by itself can be reached."""


class TerraformError(Exception):
    """Terraform ended otherwise than well; holds what it printed."""


@dataclass(frozen=True)
class Terraform:
    """Terraform in a folder, with a home directory where it may leave things.

    It sees `environment` besides.
    """

    program: str
    folder: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str) -> str:
        """Run a command; return what it printed, or raise `TerraformError` with it."""
        done = subprocess.run(
            [self.program, *words],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "CHECKPOINT_DISABLE": "1",
                "TF_IN_AUTOMATION": "1",
                "NO_COLOR": "1",
                **self.environment,
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=100,
        )
        if done.returncode:
            raise TerraformError(f"terraform {words[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def init(self) -> None:
        """Fetch modules and providers, or skip the test for want of a provider."""
        plugins = os.environ.get(PLUGINS)
        try:
            self.run("init", *([f"-plugin-dir={plugins}"] if plugins else []))
        except TerraformError as error:
            if "Failed to query available provider packages" not in str(error):
                raise
            # A registry out of reach is no fault of this machine's set-up, so CI passes too.
            wanted = "aws" if "hashicorp/aws" in str(error) else "vault"
            reason = f"terraform provider hashicorp/{wanted} (set {PLUGINS})"
            pytest.skip(f"component missing: {reason}")


@dataclass(frozen=True)
class TerraformTree:
    """A copy of the whole folder `terraform`, for tests to work in."""

    program: str
    root: Path

    def at(self, folder: str) -> Terraform:
        """Return Terraform in one of its folders, such as `modules/vault/policies`."""
        return Terraform(self.program, self.root / "terraform" / folder, self.root)


@pytest.fixture(scope="module")
def terraform(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> TerraformTree:
    """The modules and examples, to be applied for real."""
    program = component.program("terraform", "install Terraform")
    root = tmp_path_factory.mktemp("terraform")
    unwanted = shutil.ignore_patterns(".terraform*", "*.tfstate*")
    shutil.copytree(SOURCES, root / "terraform", ignore=unwanted)
    return TerraformTree(program, root)
