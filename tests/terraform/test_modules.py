"""Every module passes its own tests, and every example is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.components.terraform import SOURCES

if TYPE_CHECKING:
    from tests.components.terraform import TerraformTree

MODULES = sorted(
    str(path.parent.relative_to(SOURCES)) for path in SOURCES.glob("modules/**/versions.tf")
)
EXAMPLES = sorted(str(path.parent.relative_to(SOURCES)) for path in SOURCES.glob("examples/*/*.tf"))
APPLIED = {"examples/aws", "examples/github-oidc"}
"""Which other tests apply."""
WITHOUT_TESTS = {"modules/vault"}
"""Its policy is tested by itself; what remains is resources, which only a provider can judge."""


def test_every_file_is_formatted(terraform: TerraformTree) -> None:
    terraform.at(".").run("fmt", "-check", "-recursive")


@pytest.mark.parametrize("folder", MODULES)
def test_a_module_is_valid_and_passes_its_tests(terraform: TerraformTree, folder: str) -> None:
    here = terraform.at(folder)
    here.init()
    tests = [*here.folder.glob("tests/*.tftest.hcl")]
    assert bool(tests) is (folder not in WITHOUT_TESTS)
    if tests:
        assert ", 0 failed." in here.run("test")  # which validates, too
    else:
        here.run("validate")


@pytest.mark.parametrize("folder", [one for one in EXAMPLES if one not in APPLIED])
def test_an_example_is_valid(terraform: TerraformTree, folder: str) -> None:
    here = terraform.at(folder)
    here.init()
    here.run("validate")


@pytest.mark.parametrize("folder", MODULES)
def test_every_variable_and_output_says_what_it_is(folder: str) -> None:
    for path in (SOURCES / folder).glob("*.tf"):
        text = path.read_text()
        for block in text.split("\n}\n"):
            if block.lstrip().startswith(("variable ", "output ")):
                assert "\n  description = " in block, (path, block)


@pytest.mark.parametrize("folder", [one for one in MODULES if one != "modules/vault/policies"])
def test_every_module_has_a_readme(folder: str) -> None:
    name = folder.rpartition("/")[2]
    assert (SOURCES / folder / "README.md").read_text().startswith(f"# {name}\n")
