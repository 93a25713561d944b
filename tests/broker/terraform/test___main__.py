from __future__ import annotations

import subprocess
import sys


def test_the_module_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "broker.terraform", "--help"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "terraform-provider-broker mirror DIR" in ran.stderr
