"""Choose where requests that have limits are counted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.app.home import Places
from broker.limits.local import LocalCounts
from broker.limits.memory import MemoryCounts
from broker.limits.quota import quota_of
from broker.limits.redis import PasswordFile, RedisCounts
from broker.settings.values import is_loopback

if TYPE_CHECKING:
    from broker.limits.base import Counts
    from broker.limits.quota import PolicyView
    from broker.model import Grant
    from broker.settings import Settings
    from broker.storage.base import Storage, TotalStore

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UsedTotal:
    """How much of a total a grant has used, itself or by what it was narrowed from or to."""

    name: str
    used: int
    most: int


async def used_totals(
    policy: PolicyView, totals: TotalStore, grant: Grant
) -> tuple[UsedTotal, ...]:
    """Return how much of each of its totals a grant has used; raise `StorageError`."""
    quotas = (quota_of(policy, grant, scope) for scope in grant.scopes)
    caps = dict.fromkeys(cap for quota in quotas if quota is not None for cap in quota.totals)
    used = await totals.used([cap.key for cap in caps])
    fullest: dict[str, UsedTotal] = {}
    for cap in caps:  # the same total, of the grant and of each that it descends from
        count = max(used.get(cap.key, 0), fullest[cap.name].used if cap.name in fullest else 0)
        fullest[cap.name] = UsedTotal(cap.name, count, cap.most)
    return tuple(fullest.values())


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
