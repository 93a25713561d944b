"""A websocket on its way: a request whose answer is bytes both ways until one side ends it.

What passes through a tunnel is judged by nobody, so its handshake is treated like a request that
may change something: it is sent once its intent is durable. The tunnel ends with the grant that it
was opened under, and its outcome says how many bytes went either way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from broker.gateway.frames import FrameScrubbing
from broker.gateway.metering import Metered
from broker.gateway.problems import Refusal
from broker.gateway.translate import agent_lines
from broker.gateway.upload import Upload
from broker.gateway.websocket import EXTENSIONS, SWITCHING, why_not_switched

if TYPE_CHECKING:
    from broker.gateway.authorize import Admission
    from broker.gateway.response import ResponseHead
    from broker.gateway.upstream import UpstreamConnection
    from broker.gateway.works import Client, Works

_SWITCHED: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_EXPIRED: Final = Refusal(
    "token_invalid", "the task token expired while the websocket was open", note="expired"
)


class Tunnel(Metered):
    """One admitted handshake, and the websocket that comes of it if the service agrees.

    If it has limits, it takes its place until it is closed.
    """

    __slots__ = ("_ends", "_open")

    def __init__(self, works: Works, client: Client, admission: Admission) -> None:
        super().__init__(works, client, admission)
        self._open = False
        # By the monotonic clock, so that a step of the other one neither cuts nor keeps it.
        self._ends = works.clock() + admission.grant.expires_at - time.time()

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the handshake on a connection that serves nothing else afterwards."""
        connection.switches = True
        super().connected(connection)

    def answered(self, head: ResponseHead, content: bytes, *, done: bool) -> None:
        """Open the tunnel, or pass on that the service does not want to."""
        if head.status != SWITCHING:
            super().answered(head, content, done=done)
            return
        asked, credential = self._admission.handshake, self._credential
        if asked is None or credential is None or self._upstream is None:
            raise RuntimeError("a protocol is switched that nobody asked to")
        if EXTENSIONS in credential.removal.fields:
            asked = asked._replace(extensions=frozenset())
        problem = why_not_switched(asked, head.switching, head.options)
        if problem is not None:
            self.fail(Refusal("upstream_malformed", f"the service's answer: {problem}"))
            return
        self._head = head
        lines = agent_lines(head, self._admission, credential, chunks=False) + _SWITCHED
        if credential.scrubber is not None:
            self._scrubbing = FrameScrubbing(credential.scrubber)
            self._scrubbing.found = credential.is_shown_in(head.translated)
            lines = self._scrubbing.head(lines)
        limits = self._works.limits
        self._upload = Upload(
            self._client, chunked=False, buffer=limits.buffer_bytes, most=limits.body_bytes
        )
        self._upload.flow(self._upstream)
        self._open = self._begun = True
        self._client.write(lines)
        self._client.switch()
        if content or done:
            self.content(content, done=done)

    def hung_up(self) -> None:
        """End the tunnel, as either side may."""
        if self._open and not self.over:
            if self._upstream is not None:
                self._upstream.finish()
                self._upstream = None
            self._settle("allow", SWITCHING)
        else:
            super().hung_up()

    def patience(self) -> float:
        """Return how many seconds may pass before something must happen."""
        if not self._open:
            return super().patience()
        left = max(0.0, self._ends - self._works.clock())
        slow = self._client_slow or (self._upload is not None and self._upload.slow)
        idle = self._admission.route.upstream.idle_timeout
        return min(left, self._works.limits.body_timeout if slow else idle)

    def expire(self) -> None:
        """Cut a tunnel whose grant has expired, or in which nothing moves any more."""
        if not self._open:
            super().expire()
        elif self._works.clock() >= self._ends:
            self.fail(_EXPIRED)
        elif self._client_slow:
            super().expire()
        else:
            self.fail(Refusal("upstream_timeout", "nothing moved through the websocket in time"))
