"""An agent's connection: requests in, each answered before the next is looked at."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from broker.gateway.authorize import Admission, Rejection
from broker.gateway.base import METADATA_PATH
from broker.gateway.crowding import make_way, standing
from broker.gateway.framing import ChunkedBody, LengthBody, UntilCloseBody
from broker.gateway.grammar import Malformed
from broker.gateway.held import Held
from broker.gateway.metering import Metered
from broker.gateway.problems import (
    REVOKED,
    UNRECORDED,
    Refusal,
    malformed,
    render,
    report,
    unsignable,
)
from broker.gateway.relay import Relay
from broker.gateway.request import RequestReader
from broker.gateway.sparing import Sparing
from broker.gateway.tunnel import Tunnel
from providers.signing import Unsignable

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.gateway.framing import Body
    from broker.gateway.request import Request
    from broker.gateway.works import Works
    from broker.model import Grant

_METADATA: Final = METADATA_PATH.encode()
_TURNS: Final = 16
"""Requests of one connection that are judged at a time, before others have their turn."""


class AgentConnection(asyncio.Protocol):
    """The gateway's side of an agent's connection (`works.Client`).

    `connections` is the set of all that are open, to which it adds itself.
    """

    def __init__(self, works: Works, connections: set[AgentConnection]) -> None:
        self._works = works
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self.address: str | None = None
        self._reader = RequestReader(works.limits, works.resource.pseudonym)
        self._buffer = b""
        self._request: Request | None = None
        self._body: Body | None = None
        self._relay: Relay | Held | None = None
        self._advancing = False
        self._in_head = False
        self._held = False  # whether reading is paused
        self._slow = False  # whether writing is
        self._served = False  # whether a request of it was ever one that policy allows
        self._closing = False  # whether what still comes is of no interest
        self._unsent = 0
        self._deadline: float | None = None  # see Relay.deadline

    def lasting(self) -> bool:
        """Tell whether the connection may serve another request after this one."""
        request = self._request
        return not (
            request is None or request.fields.closes or self._closing or self._works.draining
        )

    @property
    def standing(self) -> tuple[int, float] | None:
        """How good its claim to its place is (`crowding.Idler`)."""
        if self._relay is not None:
            return None
        return standing(
            closing=self._closing,
            served=self._served,
            in_head=self._in_head,
            deadline=self._deadline,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (`asyncio.Protocol`)."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(self._works.limits.buffer_bytes)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else None
        if len(self._connections) >= self._works.limits.connections:
            self._connections.difference_update(make_way(self._connections))
        if len(self._connections) < self._works.limits.connections:
            self._connections.add(self)
        else:
            self.reject(Rejection(Refusal("overloaded", "too many connections are open")))
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Let go of the request under way (`asyncio.Protocol`)."""
        self._connections.discard(self)
        self._closing = True
        self._transport = None
        if self._relay is not None:
            self._relay.hung_up()
            self._relay = None

    def data_received(self, data: bytes) -> None:
        """Read requests (`asyncio.Protocol`)."""
        if not self._closing:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()

    def pause_writing(self) -> None:
        """Pass on that the agent is slow (`asyncio.Protocol`)."""
        self._slow = True
        if self._relay is not None:
            self._relay.client_full()

    def resume_writing(self) -> None:
        """Pass on that the agent has caught up (`asyncio.Protocol`)."""
        self._slow = False
        if self._relay is not None:
            self._relay.client_ready()
        else:
            self._advance()

    def write(self, data: bytes) -> None:
        """Send a part of the response."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal as the whole response, and be done with the request."""
        body, request = self._body, self._request
        # A body that is all here can be skipped; to wait for the rest of one is not worth it.
        skips = body is None or (isinstance(body, LengthBody) and body.left <= len(self._buffer))
        keep = skips and self.lasting() and not refusal.final
        to_head = request is not None and request.method == b"HEAD"
        self.write(render(refusal, self._works.resource, body=not to_head, close=not keep))
        self._reader.forget()
        self.finish(keep=keep)

    def reject(self, rejection: Rejection) -> None:
        """Put a refusal on record, and send it."""
        recorded = self._works.recorder.reject(rejection, self._request, self.address)
        self.refuse(rejection.refusal if recorded else UNRECORDED)

    def admit(self, admission: Admission, body: bytes) -> None:
        """Send a request on its way whose body was waited for."""
        relay = self._relay = self._relay_of(admission)
        relay.start()
        if body:
            relay.add(body)
        relay.end()

    def finish(self, *, keep: bool) -> None:
        """Be done with the request, whose response is complete; `keep` the connection."""
        self._relay = None
        self._request = None
        if not keep:
            self._shut()
            return
        self._in_head = False
        self._deadline = None
        if self._held:
            self.release()
        if self._buffer:
            self._advance()

    def abort(self) -> None:
        """Close at once, so that the agent sees that its response is cut short."""
        self._closing = True
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.hung_up()
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        """Read no more for now."""
        if not self._held and self._transport is not None and not self._transport.is_closing():
            self._held = True
            self._transport.pause_reading()

    def release(self) -> None:
        """Read on."""
        if self._held and self._transport is not None and not self._transport.is_closing():
            self._held = False
            self._transport.resume_reading()

    def switch(self) -> None:
        """Take whatever comes from now on as the request's, for the protocol has changed."""
        self._body = UntilCloseBody()
        self.release()
        self._advance()

    def drain(self) -> None:
        """Close if no request is under way; otherwise the one under way is the last."""
        if self._relay is None and not self._in_head and self._transport is not None:
            self._transport.close()

    def cut(self, is_revoked: Callable[[Grant], bool]) -> None:
        """Break off the request under way if its grant has been revoked."""
        if self._relay is not None and is_revoked(self._relay.grant):
            self._relay.fail(REVOKED)

    def tick(self, now: float) -> None:
        """Keep the deadlines; `now` is of the monotonic clock."""
        relay = self._relay
        if relay is not None:
            if relay.deadline is None:
                relay.deadline = now + relay.patience()
            if now >= relay.deadline:
                relay.expire()
        elif self._deadline is None:
            self._deadline = now + self._patience()
        elif now >= self._deadline and self._transport is not None:
            self._expire(self._transport)

    def _patience(self) -> float:
        limits = self._works.limits
        if self._closing:
            return limits.linger
        return limits.head_timeout if self._in_head else limits.idle_timeout

    def _expire(self, transport: asyncio.Transport) -> None:
        unsent = transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:
            self._unsent = unsent  # the agent still takes its response, if slowly
            self._deadline = None
        elif self._in_head and not self._closing:
            detail = f"its head was not complete within {self._works.limits.head_timeout:g} s"
            self.reject(Rejection(Refusal("request_timeout", detail, final=True)))
        else:
            self.abort()

    def _advance(self) -> None:
        """Take from the buffer all that can be taken now."""
        if self._advancing:
            return
        self._advancing = True
        turns = _TURNS
        try:
            while self._buffer and not self._closing:
                if self._body is not None:
                    self._take_body(self._body)
                elif self._relay is None and not self._slow and turns:
                    turns -= 1
                    if not self._take_head():
                        break
                else:
                    self._wait(for_turn=not turns)
                    break
        except Malformed as error:
            self._break_off(malformed(f"the request's body: {error}"))
        except Unsignable as error:
            self._break_off(unsignable(error))
        except Exception as error:  # noqa: BLE001 - a defect costs one connection, not the gateway
            report(error, "handling a request")
            detail = "the gateway could not handle the request"
            self._break_off(Refusal("internal_error", detail, final=True))
        finally:
            self._advancing = False

    def _wait(self, *, for_turn: bool) -> None:
        """Let what is in the buffer wait, for the request under way or for others' turn."""
        if for_turn:
            self._works.loop.call_soon(self._advance)
        if len(self._buffer) > self._works.limits.buffer_bytes:
            self.hold()

    def _take_body(self, body: Body) -> None:
        content = body.feed(self._buffer)
        self._buffer = body.rest
        if body.done:
            self._body = None
        if self._relay is not None and content:
            self._relay.add(content)
        if self._relay is not None and body.done:
            self._relay.end(body.trailers)

    def _take_head(self) -> bool:
        """Judge the request that the buffer begins with, and send it on its way if allowed.

        Return False if its head is not complete yet.
        """
        works = self._works
        request = self._reader.read(self._buffer)
        if request is None:
            if not self._in_head:
                self._in_head = True
                self._deadline = None
            return False
        if isinstance(request, Refusal):
            self.reject(Rejection(request))
            return True
        self._request = request
        self._buffer = self._buffer[request.size :]
        fields = request.fields
        if fields.has_body:
            self._body = ChunkedBody() if fields.chunked else LengthBody(fields.length or 0)
        if request.path == _METADATA and request.method in {b"GET", b"HEAD"}:
            self._tell_metadata(request.method)
            return True
        verdict = works.authorization.decide(request)
        if isinstance(verdict, Rejection):
            self.reject(verdict)
        elif isinstance(verdict, Admission):
            self._relay = self._relay_of(verdict)
            self._relay.start()
        else:
            self._relay = Held(works, self, verdict)
            self._relay.start()
        return True

    def _relay_of(self, admission: Admission) -> Relay:
        self._served = True
        if admission.handshake is not None:
            return Tunnel(self._works, self, admission)
        kind = Relay if admission.quota is None else Metered
        return kind(self._works, self, admission)

    def _tell_metadata(self, method: bytes) -> None:
        document = self._works.resource.document()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        keep = self.lasting() and self._body is None
        head %= len(document), b"" if keep else b"Connection: close\r\n"
        self.write(head + document if method == b"GET" else head)
        self.finish(keep=keep)

    def _break_off(self, refusal: Refusal) -> None:
        if self._relay is not None:
            self._relay.fail(refusal)
        else:
            self.reject(Rejection(refusal))

    def _shut(self) -> None:
        """Say that nothing more will come, and wait a little for the agent to have read it."""
        self._closing = True
        self._buffer = b""
        self._deadline = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
            self.release()  # what arrives is dropped; unread, it would reset the connection
        else:
            transport.close()


def accept(works: Works, connections: set[AgentConnection]) -> asyncio.BaseProtocol:
    """Return the protocol of one more connection beside those that are open."""
    connection = AgentConnection(works, connections)
    if len(connections) < works.limits.roomy_connections:
        return connection
    return Sparing(connection, works.room)
