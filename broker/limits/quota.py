"""What one request counts against: the limits of its scope and of its agents, put together.

A `Quota` is made once for a grant and a scope and says which counts a request under them adds
to. All limits apply, so the strictest wins:

- a scope's are counted for each agent that has the scope,
- an agent's over all of its grants and scopes. Where an agent acts for another, both apply;
- `total` is counted for the grant and for each that it descends from, so that narrowing a task
  token does not multiply it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from limits.limits import GRANULARITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from limits import RateLimitItem

    from broker.allowance import Limits, Rate
    from broker.model import Agent, Grant, Scope

LimitKind = Literal["rate", "concurrent", "total", "request_bytes", "response_bytes"]

KINDS: Final[tuple[LimitKind, ...]] = (
    "rate",
    "concurrent",
    "total",
    "request_bytes",
    "response_bytes",
)


class PolicyView(Protocol):
    """What limits are read from: one immutable snapshot of the policy."""

    @property
    def scopes(self) -> Mapping[str, Scope]:
        """Every scope by name."""
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Every agent by name."""
        ...


@dataclass(frozen=True, slots=True)
class Window:
    """A rate: at most `item.amount` in any window of time, counted under `key`."""

    item: RateLimitItem
    key: str
    name: str

    @property
    def count_key(self) -> str:
        """The key under which a storage of the `limits` library counts it."""
        return self.item.key_for(self.key)


class Cap(NamedTuple):
    """At most so many, of what is counted under `key` or of a body's bytes."""

    most: int
    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What a request counts against; each part's `name` is for the person who meets the limit.

    `until` is when the grant ends, in seconds since the epoch, and with it its totals.
    """

    windows: tuple[Window, ...] = ()
    places: tuple[Cap, ...] = ()
    totals: tuple[Cap, ...] = ()
    until: int = 0
    request_bytes: Cap | None = None
    response_bytes: Cap | None = None

    @property
    def counted(self) -> bool:
        """Whether anything is counted, beside the sizes of bodies."""
        return bool(self.windows or self.places or self.totals)

    def minting(self) -> Quota:
        """Return what the minting of a credential counts against: nothing of it is under way."""
        return replace(self, places=())


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that is used up: which, and in how many seconds (at least 1) to try again."""

    kind: LimitKind
    name: str
    wait: int


def quota_of(policy: PolicyView, grant: Grant, scope: str) -> Quota | None:
    """Return what a request under this scope of a grant counts against; None for nothing."""
    owners = list(_owners(policy, grant, scope))
    if not owners:
        return None
    return Quota(
        windows=tuple(one for owner in owners for one in owner.windows()),
        places=tuple(
            Cap(most, owner.key, f"{owner.name}: concurrent {most}")
            for owner in owners
            if (most := owner.limits.concurrent) is not None
        ),
        totals=tuple(one for owner in owners for one in owner.totals(grant)),
        until=grant.expires_at,
        request_bytes=_least("request_bytes", owners),
        response_bytes=_least("response_bytes", owners),
    )


def token_quota(agent: Agent | None) -> Quota | None:
    """Return what a task token for an agent counts against: its rates, counted for themselves."""
    if agent is None or agent.limits is None or not agent.limits.rates:
        return None
    owner = _Owner(f"agent {agent.name}", f"token/{agent.name}", agent.limits)
    return Quota(windows=tuple(owner.windows()))


class _Owner(NamedTuple):
    """A scope or an agent that has limits."""

    name: str
    key: str
    limits: Limits

    def windows(self) -> Iterator[Window]:
        for rate in self.limits.rates:
            yield Window(_item(rate), self.key, f"{self.name}: rate {rate}")

    def totals(self, grant: Grant) -> Iterator[Cap]:
        most = self.limits.total
        if most is not None:
            for jti in grant.line:
                yield Cap(most, f"{self.key}/{jti}", f"{self.name}: total {most}")


def _owners(policy: PolicyView, grant: Grant, scope: str) -> Iterator[_Owner]:
    declared = policy.scopes.get(scope)
    if declared is not None and declared.limits is not None:
        yield _Owner(f"scope {scope}", f"scope/{scope}/{grant.agent}", declared.limits)
    for name in dict.fromkeys(grant.parties[:2]):  # whose rights, and who uses them now
        agent = policy.agents.get(name)
        if agent is not None and agent.limits is not None:
            yield _Owner(f"agent {name}", f"agent/{name}", agent.limits)


def _least(kind: Literal["request_bytes", "response_bytes"], owners: list[_Owner]) -> Cap | None:
    caps = []
    for owner in owners:
        most = getattr(owner.limits, kind)
        if most is not None:
            text = next(text for text in owner.limits.texts if text.startswith(kind))
            caps.append(Cap(most, owner.key, f"{owner.name}: {text}"))
    return min(caps, default=None)


@lru_cache(maxsize=1024)
def _item(rate: Rate) -> RateLimitItem:
    return GRANULARITIES[rate.unit](rate.amount)
