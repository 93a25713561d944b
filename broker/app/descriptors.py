"""Have enough file descriptors, or fewer connections: running out of them stops everything else.

The trail's next segment, the database and the policies need one each, and a process that has none
left cannot even refuse a caller.
"""

from __future__ import annotations

import logging
import resource
from typing import Final

_LOG: Final = logging.getLogger(__name__)

RESERVED: Final = 192
"""Descriptors kept for files, the database, Vault, providers and the event loop."""

CONTROL: Final = 1024
"""Connections that the control plane may have, where there is room for them."""

_LEAST: Final = 16


def room(wanted: int) -> tuple[int, int]:
    """Return how many connections the gateway's agents and the control plane may have.

    `wanted` is how many agents' connections there are to be; each may need one to a service as
    well. The process's own limit is raised as far as the system lets it.
    """
    needed = 2 * wanted + CONTROL + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _less(soft, needed):
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not _less(soft, needed):
        return wanted, CONTROL
    left = max(0, soft - RESERVED)
    control = max(_LEAST, min(CONTROL, left // 8))
    agents = max(_LEAST, min(wanted, (left - control) // 2))
    if agents < wanted:
        _LOG.warning(
            "the system gives this process %d file descriptors, enough for %d connections of "
            "agents and not for %d: raise its limit (LimitNOFILE, ulimit -n) to %d, or lower "
            "gateway.connections",
            *(soft, agents, wanted, needed),
        )
    return agents, control


def _less(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed
