"""Choose where requests that have limits are counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.app.home import Places
from broker.limits.local import LocalCounts
from broker.limits.memory import MemoryCounts
from broker.limits.redis import PasswordFile, RedisCounts
from broker.settings.values import is_loopback

if TYPE_CHECKING:
    from broker.limits.base import Counts
    from broker.settings import Settings
    from broker.storage.base import Storage

_LOG: Final = logging.getLogger(__name__)


def open_counts(settings: Settings, storage: Storage) -> Counts:
    """Return what counts requests, which the caller closes.

    Raises:
        ConfigurationError: the file that several workers share cannot be used; says why.
    """
    limits = settings.limits
    if limits.url is not None:
        parts = urlsplit(limits.url)
        if parts.scheme == "redis" and not is_loopback(parts.hostname or ""):
            _LOG.warning("limits.url: what is said there can be read on the way; use rediss://")
        path = limits.password_file
        password = None if path is None else PasswordFile(path, limits.username)
        return RedisCounts(limits.url, password=password, ca_file=limits.ca_file)
    if settings.workers > 1:
        return LocalCounts(Places(settings.home).limits, storage.totals)
    return MemoryCounts(storage.totals)
