"""Who waits for a connection to a service: agents in turn, each with its own in their order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.gateway.problems import Refusal
    from broker.gateway.route import Route
    from broker.gateway.upstream import UpstreamConnection


class Waiter(Protocol):
    """Whoever wants to send a request; `agent` is on whose behalf."""

    @property
    def agent(self) -> str:
        """The agent whose request it is."""
        ...

    @property
    def waiting(self) -> bool:
        """Tell whether a connection is still wanted."""
        ...

    def connected(self, connection: UpstreamConnection) -> None:
        """Take a connection, for one request."""
        ...

    def unconnected(self, refusal: Refusal) -> None:
        """Learn that there is none to be had."""
        ...


def share(most: int) -> int:
    """Return how many of `most` places one agent may have, so that some are left for others."""
    return -(-3 * most // 4)


class WaitingLine:
    """At most `most` that wait, and of these no more than its share for one agent."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = share(most)
        self._agents: dict[str, deque[tuple[Route, Waiter]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def join(self, route: Route, waiter: Waiter) -> bool:
        """Add one at the end of its agent's; return False if there is no place."""
        own = self._agents.get(waiter.agent)
        if self._size >= self._most or (own is not None and len(own) >= self._share):
            return False
        if own is None:
            own = self._agents[waiter.agent] = deque()
        own.append((route, waiter))
        self._size += 1
        return True

    def next(self, may: Callable[[str], bool]) -> tuple[Route, Waiter] | None:
        """Return the first, who still wants a connection, of the agent whose turn it is.

        It is the turn of no agent that may not have one.
        """
        for agent in [agent for agent in self._agents if may(agent)]:
            own = self._agents.pop(agent)
            while own:
                following = own.popleft()
                self._size -= 1
                if following[1].waiting:
                    if own:
                        self._agents[agent] = own  # behind all others
                    return following
        return None
