from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.terraform import main

if TYPE_CHECKING:
    from pathlib import Path


def test_a_mirror_holds_a_program_that_terraform_can_start(tmp_path: Path) -> None:
    told = main.make_mirror(tmp_path / "a mirror")
    assert f'path    = "{tmp_path}/a mirror"' in told
    assert f'exclude = ["{main.ADDRESS}"]' in told
    (program,) = (tmp_path / "a mirror" / main.ADDRESS).glob("*/*/terraform-provider-broker_v*")
    ran = subprocess.run([program], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "terraform-provider-broker mirror DIR" in ran.stderr
    assert main.make_mirror(tmp_path / "a mirror") == told


@pytest.mark.parametrize("arguments", [[], ["mirror"], ["mirror", "a", "b"], ["--help"]])
def test_whoever_starts_it_by_hand_is_told_what_it_is(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["terraform-provider-broker", *arguments])
    monkeypatch.delenv("TF_PLUGIN_MAGIC_COOKIE", raising=False)
    with pytest.raises(SystemExit, match="Terraform starts this program by itself"):
        main.main()


def test_mirror_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["terraform-provider-broker", "mirror", str(tmp_path / "m")])
    main.main()
    assert "filesystem_mirror" in capsys.readouterr().out
    assert os.access(tmp_path / "m" / main.ADDRESS, os.R_OK)


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=r"agent-token-broker\[terraform\]"):
        main.main()
