"""Say on what, and with which versions, something was measured."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.interpreter import python_version
from bench.peers.base import FOLDER, installed
from bench.processes import MissingProgram, program

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION: Final = re.compile(r"(?<![\w.])\d+\.\d+(?:\.\d+)*|(?<=\bv)\d+\.\d+\.\d+")
_SAID: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "nginx": (program, "-v"),
    "wrk": (program, "-v"),
    "haproxy": (program, "-v"),
    "node": (program, "--version"),
    "envoy": (installed, "--version"),
    "mitmdump": (installed, "--version"),
}
"""How each program is found, and how it is asked for its version."""


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": python_version(),
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the version of each program that is there."""
    found = {"uvloop": version("uvloop"), "cryptography": version("cryptography")}
    undici = FOLDER.parent / "node_modules" / "undici" / "package.json"
    if undici.exists():
        found["undici"] = str(json.loads(undici.read_text())["version"])
    for name, (find, option) in _SAID.items():
        try:
            command = [find(name), option]
        except MissingProgram:
            continue
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        number = _VERSION.search(done.stderr + done.stdout)
        found[name] = number[0] if number else "unknown"
    return found
