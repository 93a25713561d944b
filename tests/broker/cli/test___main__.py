from __future__ import annotations

import subprocess
import sys


def test_the_module_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "broker.cli", "--version"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.startswith("broker 0.")
