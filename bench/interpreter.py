"""Which broker is measured: as the image has it, on Debian's Python and with compiled modules.

`make bench` builds that where the machine has Debian's Python. An interpreter that was built
without optimisation by profiles, as version managers build it by default, takes an eighth more
processor time for the same request.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_IMAGE: Final = Path(__file__).resolve().parent.parent / ".venv-image" / "bin"
"""Where `make bench` builds it."""

_PLACE: Final = _IMAGE if (_IMAGE / "broker").exists() else Path(sys.executable).parent

PYTHON: Final = str(_PLACE / "python")
"""The interpreter of the broker under measurement, and of the peers' Python."""

BROKER: Final = str(_PLACE / "broker")
"""The command under measurement."""


_ASK: Final = """
import sys
from broker.gateway import relay
compiled = "compiled" if relay.__file__.endswith(".so") else "interpreted"
print(f"{sys.version.split()[0]} (gateway {compiled})")
"""


def python_version() -> str:
    """Return the version of the interpreter under measurement, and whether the gateway is compiled.

    As in: 3.11.2 (gateway compiled).
    """
    command = [PYTHON, "-P", "-c", _ASK]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
