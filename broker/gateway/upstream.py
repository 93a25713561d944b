"""One connection to an upstream: requests out, responses in, one at a time.

A connection is used again only after a response that left nothing open: read to its end,
nothing after it, the request sent whole, and both sides willing to go on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast

from broker.gateway.framing import UntilCloseBody
from broker.gateway.grammar import Malformed
from broker.gateway.problems import Refusal, report
from broker.gateway.response import ResponseReader
from broker.gateway.websocket import SWITCHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.gateway.framing import Body
    from broker.gateway.limits import GatewayLimits
    from broker.gateway.response import ResponseHead

_SMALL_PIECE: Final = 1024
_PIECES_OF_A_STREAM: Final = 8


class Receiver(Protocol):
    """Whoever sent the request and waits for its response."""

    @property
    def agent(self) -> str:
        """On whose behalf the request is made."""
        ...

    def answered(self, head: ResponseHead, content: bytes, *, done: bool) -> None:
        """Take the response's head and the first of its content; `done` if that is all."""
        ...

    def content(self, content: bytes, *, done: bool) -> None:
        """Take more content; `done` if the response ends with it."""
        ...

    def trailed(self, lines: Sequence[bytes]) -> None:
        """Take the lines of a trailer section that was declared, before the last of the content."""
        ...

    def failed(self, refusal: Refusal, *, stale: bool) -> None:
        """Learn that no response, or no more of it, will come.

        `stale` is true if the connection had been used before and was closed without a byte.
        """
        ...

    def upstream_full(self) -> None:
        """Learn that the upstream takes the request more slowly than it comes."""
        ...

    def upstream_ready(self) -> None:
        """Learn that the upstream takes more of the request."""
        ...


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def made(self, connection: UpstreamConnection) -> None:
        """Count a connection that has been opened."""
        ...

    def give(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can be used again."""
        ...

    def lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has been closed."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """A connection to one upstream.

    `key` names the upstream, `idle_since` is when the pool first found the connection idle
    since its last use, and `usable` is true while requests may be sent on it. `switches` is
    set where the request asks for another protocol: it is the connection's last.
    """

    switches = False

    def __init__(self, key: str, limits: GatewayLimits, owner: Owner) -> None:
        self.key = key
        self.idle_since: float | None = None
        self.usable = False
        self._limits = limits
        self._reader = ResponseReader(limits)
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._method = b""
        self._whole = False  # whether the request has been written to its end
        self._used = False
        self._buffer = b""
        self._interims = 0
        self._small_pieces = 0
        self._head: ResponseHead | None = None
        self._body: Body | None = None

    @property
    def agent(self) -> str | None:
        """On whose behalf the request is made that it is on, if it is on any."""
        return None if self._receiver is None else self._receiver.agent

    def begin(self, receiver: Receiver, method: bytes, head: bytes, *, whole: bool) -> None:
        """Send a request's head; its response goes to `receiver`.

        `whole` says that there is no more of the request to come.
        """
        self._receiver = receiver
        self._method = method
        self._whole = whole
        self._interims = self._small_pieces = 0
        self._head = self._body = None
        self.write(head)

    def write(self, data: bytes) -> None:
        """Send a part of the request."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def sent(self) -> None:
        """Learn that the request has been written to its end."""
        self._whole = True

    def pause(self) -> None:
        """Read no more of the response for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def finish(self) -> None:
        """Close once what was written is sent, without a word to the receiver."""
        self._receiver = None
        self.usable = False
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            asyncio.get_running_loop().call_later(self._limits.linger, transport.abort)

    def abort(self) -> None:
        """Close at once, without a word to the receiver."""
        self._receiver = None
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (`asyncio.Protocol`)."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(self._limits.buffer_bytes)
        self.usable = True
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        """Read a response (`asyncio.Protocol`)."""
        receiver = self._receiver
        if receiver is None:
            self.abort()  # nobody asked: what comes now could be taken for the next answer
            return
        try:
            self._receive(data, receiver)
        except Malformed as error:
            self._fail(receiver, Refusal("upstream_malformed", f"the service's answer: {error}"))
        except Exception as error:  # noqa: BLE001 - a defect costs one response, not the gateway
            report(error, "reading a response")
            detail = "the gateway could not handle the answer"
            self._fail(receiver, Refusal("internal_error", detail))

    def eof_received(self) -> None:
        """Let the connection be closed (`asyncio.Protocol`)."""
        self.usable = False

    def connection_lost(self, error: Exception | None) -> None:
        """End the response with its connection, or say that it is cut short."""
        if self._transport is None:
            return  # lost before there was a connection, such as in TLS's handshake
        self.usable = False
        self._owner.lost(self)
        receiver, head = self._receiver, self._head
        if receiver is None:
            return
        self._receiver = None
        if error is None and isinstance(self._body, UntilCloseBody):
            receiver.content(b"", done=True)
            return
        stale = self._used and head is None and not self._buffer and not self._interims
        cut = "in the middle of its answer" if head or self._buffer else "without an answer"
        refusal = Refusal("upstream_closed", f"the service closed the connection {cut}")
        receiver.failed(refusal, stale=stale)

    def pause_writing(self) -> None:
        """Pass on that the upstream is slow (`asyncio.Protocol`)."""
        if self._receiver is not None:
            self._receiver.upstream_full()

    def resume_writing(self) -> None:
        """Pass on that the upstream has caught up (`asyncio.Protocol`)."""
        if self._receiver is not None:
            self._receiver.upstream_ready()

    def _receive(self, data: bytes, receiver: Receiver) -> None:
        if self._head is not None:
            self._receive_more(data, receiver)
            return
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        head = self._reader.read(data)
        while head is not None and head.interim:
            if head.status == SWITCHING and self.switches:
                break
            data = self._skip_interim(head, data)
            head = self._reader.read(data)
        if head is None:
            self._buffer = data
            return
        self._head = head
        content = data[head.size :]
        if not head.has_body(self._method):
            content, done = b"", not content
            self._finish(reusable=head.persistent and done)
            receiver.answered(head, b"", done=True)
        elif len(content) == head.length:
            self._finish(reusable=head.persistent)
            receiver.answered(head, content, done=True)
        else:
            body = self._body = head.body()
            content = body.feed(content)
            if not body.done or not head.trailers:
                if body.done:
                    self._finish(reusable=head.persistent and not body.rest)
                receiver.answered(head, content, done=body.done)
                return
            receiver.answered(head, content, done=False)
            self._end(receiver, head, body, b"")

    def _receive_more(self, data: bytes, receiver: Receiver) -> None:
        head, body = self._head, self._body
        if head is None or body is None:
            raise RuntimeError("more of a response that has no body")
        content = body.feed(data)
        if body.done:
            self._end(receiver, head, body, content)
        elif content:
            if len(data) <= _SMALL_PIECE:
                self._small_pieces += 1
                if self._small_pieces == _PIECES_OF_A_STREAM:
                    self._acknowledge_less()
            receiver.content(content, done=False)

    def _acknowledge_less(self) -> None:
        """Acknowledge every other event of a stream, where each would be, at once (tcp(7)).

        An acknowledgement without data costs a fifth of passing an event on. Of a service that
        waits for one before it sends more (RFC 896), or is slow, the kernel notices with the first
        that comes late, by 40 ms, and acknowledges each piece again.
        """
        if sys.platform == "linux" and self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

    def _end(self, receiver: Receiver, head: ResponseHead, body: Body, content: bytes) -> None:
        if self._receiver is None:
            return  # it has given up on what came before
        if head.trailers and body.trailers:
            receiver.trailed(body.trailers)
        self._finish(reusable=head.persistent and not body.rest)
        receiver.content(content, done=True)

    def _skip_interim(self, head: ResponseHead, data: bytes) -> bytes:
        if head.status == SWITCHING:
            raise Malformed("it switches protocols, which nobody asked for")
        # Common clients take 103 (Early Hints) for the response itself, so none is passed on.
        self._interims += 1
        if self._interims > self._limits.interim_responses:
            raise Malformed("too many interim (1xx) responses")
        return data[head.size :]

    def _finish(self, *, reusable: bool) -> None:
        """Let go of the receiver, whose response is complete."""
        transport = self._transport
        self._receiver = None
        self._used = True
        open_end = self.switches or not self._whole
        if reusable and not open_end and transport and not transport.get_write_buffer_size():
            self._owner.give(self)
        else:
            self.abort()

    def _fail(self, receiver: Receiver, refusal: Refusal) -> None:
        following = self._receiver
        self.abort()
        receiver.failed(refusal, stale=False)
        if following is not None and following is not receiver:
            # It got the connection when the response was complete, before it proved unfit.
            detail = "the connection had to be closed before the service answered"
            following.failed(Refusal("upstream_closed", detail), stale=True)
