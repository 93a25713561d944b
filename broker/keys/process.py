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
