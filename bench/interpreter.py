"""Which Python runs what is measured.

An interpreter that was built without optimisation by profiles, as version managers build it by
default, takes an eighth more processor time for the same request. The image has Debian's, which is
built with it; `make bench` puts what is measured on that one where the machine has it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

_DEBIANS: Final = Path(__file__).resolve().parent.parent / ".venv-image" / "bin"
"""What `make bench` installs the locked requirements and the broker into."""

_PLACE: Final = _DEBIANS if (_DEBIANS / "broker").exists() else Path(sys.executable).parent

PYTHON: Final = str(_PLACE / "python")
"""The interpreter of the broker under measurement, and of the peers' Python."""

BROKER: Final = str(_PLACE / "broker")
"""The command under measurement."""


def python_version() -> str:
    """Return the version of the interpreter under measurement, and whose it is."""
    told = "import sys; print(sys.version.split()[0])"
    done = subprocess.run([PYTHON, "-c", told], check=True, capture_output=True, text=True)
    return f"{done.stdout.strip()} ({'Debian' if _PLACE == _DEBIANS else 'of .venv'})"
