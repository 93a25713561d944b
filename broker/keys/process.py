"""Keep what this process holds in memory from being written out or read by others."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

from broker.errors import ConfigurationError

_PR_SET_DUMPABLE: Final = 4


def harden_process() -> None:
    """Forbid core files and, on Linux, reading this process's memory and environment.

    Call it once, before any secret is loaded. Afterwards a debugger can attach as root alone,
    and `/proc/<pid>/environ` and `/proc/<pid>/mem` belong to root. It does not bind root, does
    not keep memory out of swap, and is not inherited by programs that this process starts.

    Raises:
        ConfigurationError: the system refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    # A core may also be piped to a collector, whatever its size limit: hence not dumpable too.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ConfigurationError(f"cannot keep this process out of core files: {reason}")


def take_variable(name: str) -> str | None:
    """Return an environment variable's value, and take it out of the environment, or None.

    No child inherits it then, forked ones included, and on Linux `/proc/<pid>/environ`, which
    shows the memory that held it, has zeros in its place.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        place = libc.getenv(name.encode())
        if place:
            ctypes.memset(place, 0, len(os.fsencode(value)))
    del os.environ[name]
    return value
