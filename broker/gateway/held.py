"""A request that waits until its body is whole, for policy wants to see it.

Where no scope says `body:` nothing comes here, and bodies flow as they come. What is held is
bounded for each request by its scope, and for each agent and for all by the gateway's limits. A
body that was judged is sent as the very same bytes, with their number as its Content-Length:
chunks, trailers and whatever else could be read in two ways stay here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.gateway.authorize import Rejection
from broker.gateway.problems import Refusal, too_large
from broker.gateway.request import Request
from broker.gateway.upload import CONTINUE
from broker.policy.body import Content
from broker.twins import twin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.gateway.authorize import Pending
    from broker.gateway.request import RequestFields
    from broker.gateway.works import Client, Works
    from broker.model import Grant

_CROWDED: Final = Refusal(
    "overloaded", "too many bodies wait to be judged; send it again later", final=True
)


class Held:
    """A request in waiting; to the agent's connection it is what a relay is."""

    __slots__ = ("_body", "_client", "_pending", "_works", "deadline", "over")

    def __init__(self, works: Works, client: Client, pending: Pending) -> None:
        self._works = works
        self._client = client
        self._pending = pending
        self._body = bytearray()  # of pieces, each would take more than its bytes
        self.deadline: float | None = None
        self.over = False

    @property
    def grant(self) -> Grant:
        """The grant that the request may be admitted under."""
        return self._pending.grant

    def start(self) -> None:
        """Ask for the body, or refuse it at once if it is said to be too long."""
        fields = self._pending.request.fields
        if fields.length is not None and fields.length > self._pending.max_bytes:
            self.fail(too_large(self._pending.max_bytes))
        elif fields.expects:
            self._client.write(CONTINUE)

    def add(self, content: bytes) -> None:
        """Take bytes of the request's body."""
        if self.over:
            return
        if len(self._body) + len(content) > self._pending.max_bytes:
            self.fail(too_large(self._pending.max_bytes))
        elif not self._works.whole_bodies.take(self.grant.agent, len(content)):
            self.fail(_CROWDED)
        else:
            self._body += content
            self.deadline = None

    def end(self, trailers: Sequence[bytes] = ()) -> None:  # noqa: ARG002 - they are dropped
        """Have the request judged, now that its body is whole, and sent on or refused."""
        if self.over:
            return
        body = bytes(self._body)
        request = self._pending.request
        content = content_of(request.fields, body)
        whole = Request(
            request.method,
            request.path,
            request.query,
            request.fields.reframed(len(body)),
            request.size,
        )
        # Let go only after the verdict: if a defect keeps us from one, `fail` still refuses it.
        verdict = self._works.authorization.decide_whole(whole, content)
        self._let_go()
        if isinstance(verdict, Rejection):
            self._client.reject(verdict)
        else:
            self._client.admit(verdict, body)

    def fail(self, refusal: Refusal) -> None:
        """Refuse it, unjudged."""
        if self.over:
            return
        self._let_go()
        pending = self._pending
        route = pending.route
        self._client.reject(
            Rejection(
                refusal, route.service.name, pending.path, pending.grant, route.policy.version
            )
        )

    def hung_up(self) -> None:
        """Forget it, for the agent has closed its connection before anything came of it."""
        self._let_go()

    def client_full(self) -> None:
        """Do nothing: so far the agent has been sent nothing that it could take slowly."""

    def client_ready(self) -> None:
        """Do nothing."""

    def patience(self) -> float:
        """Return how many seconds may pass before more of the body must come."""
        return self._works.limits.body_timeout

    def expire(self) -> None:
        """Give up, for no more of the body has come."""
        detail = f"no more of the body came for {self._works.limits.body_timeout:g} s"
        self.fail(Refusal("request_timeout", detail, final=True))

    def _let_go(self) -> None:
        if not self.over:
            self._works.whole_bodies.give(self.grant.agent, len(self._body))
        self._body.clear()
        self.over = True


def content_of(fields: RequestFields, body: bytes) -> Content:
    """Return a body with what the header fields say of it, as the service will read them."""
    twins = [(field.key, twin(field.key), field.value) for field in fields.fields]
    types = [(key, value) for key, alike, value in twins if alike == b"content-type"]
    if any(alike == b"content-encoding" for _, alike, _ in twins):
        return Content(body, problem="the body has a Content-Encoding, so it cannot be judged")
    if len(types) != 1 or types[0][0] != b"content-type":
        return Content(body, problem="the body has not exactly one Content-Type")
    if b"content-type" in fields.options:
        return Content(body, problem="Connection names Content-Type, so it would not be sent on")
    return Content(body, types[0][1].decode("latin-1"))
