"""What the requests of one gateway share, and what each sees of its agent's connection."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.gateway.waiting import share

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from broker.gateway.authorize import Admission, Authorization, Rejection
    from broker.gateway.base import Resource
    from broker.gateway.credentials import Credentials
    from broker.gateway.limits import GatewayLimits
    from broker.gateway.pool import Pool
    from broker.gateway.problems import Refusal
    from broker.gateway.record import Recorder
    from broker.gateway.sparing import Room
    from broker.limits.limiter import Limiter


class WholeBodies:
    """The bytes of bodies that are read whole before they are sent: `most`, of all together.

    No agent has more than its share, so that there is room for others' while it takes its time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = share(most)
        self._agents: Counter[str] = Counter()
        self.size = 0

    def take(self, agent: str, size: int) -> bool:
        """Set so many bytes aside for a body of an agent's; False if there is no room."""
        if self.size + size > self._most or self._agents[agent] + size > self._share:
            return False
        self._agents[agent] += size
        self.size += size
        return True

    def give(self, agent: str, size: int) -> None:
        """Take back what was set aside."""
        self.size -= size
        self._agents[agent] -= size
        if not self._agents[agent]:
            del self._agents[agent]


class Works:
    """The parts of one gateway, which belong to one event loop; `clock` is the monotonic one.

    `room` is what agents' connections share where there are many, `whole_bodies` what there is
    for bodies that are read whole before they are sent. Without a `limiter` nothing that policy
    limits is let through.
    """

    def __init__(  # noqa: PLR0913 - the parts
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: GatewayLimits,
        resource: Resource,
        authorization: Authorization,
        credentials: Credentials,
        pool: Pool,
        recorder: Recorder,
        clock: Callable[[], float],
        room: Room,
        whole_bodies: WholeBodies,
        limiter: Limiter | None = None,
    ) -> None:
        self.loop: Final = loop
        self.limits: Final = limits
        self.resource: Final = resource
        self.authorization: Final = authorization
        self.credentials: Final = credentials
        self.pool: Final = pool
        self.recorder: Final = recorder
        self.clock: Final = clock
        self.room: Final = room
        self.whole_bodies: Final = whole_bodies
        self.limiter: Final = limiter
        self.draining = False
        self.tasks: Final[set[asyncio.Task[Any]]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what has to wait for something, off the hot path."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Client(Protocol):
    """The agent's connection, as one of its requests sees it.

    `address` is the numeric address at the other end.
    """

    address: str | None

    def lasting(self) -> bool:
        """Tell whether the connection may serve another request after this one."""
        ...

    def write(self, data: bytes) -> None:
        """Send a part of the response."""
        ...

    def reject(self, rejection: Rejection) -> None:
        """Put a refusal on record, and send it."""
        ...

    def admit(self, admission: Admission, body: bytes) -> None:
        """Send a request on its way whose body was waited for."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal as the whole response, and be done with the request."""
        ...

    def finish(self, *, keep: bool) -> None:
        """Be done with the request, whose response is complete; `keep` the connection."""
        ...

    def abort(self) -> None:
        """Close at once, so that the agent sees that its response is cut short."""
        ...

    def hold(self) -> None:
        """Take no more of the request's body for now."""
        ...

    def release(self) -> None:
        """Go on taking it."""
        ...

    def switch(self) -> None:
        """Take whatever comes from now on as the request's, for the protocol has changed."""
        ...
