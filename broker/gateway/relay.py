"""One request on its way: recorded, sent with its credential, answered, recorded again.

A relay joins the agent's connection with the upstream's by callbacks; it is no task. What may
change something upstream is sent only once its intent is durable. What is safe is sent beside
that write, and its response held back until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from broker.errors import AuditUnavailable
from broker.gateway.framing import chunk
from broker.gateway.inject import passing_trailers
from broker.gateway.problems import (
    UNRECORDED,
    Refusal,
    no_credential,
    too_large,
    unsearchable,
    unsent,
)
from broker.gateway.request import IDEMPOTENT
from broker.gateway.scrubbing import Scrubbing
from broker.gateway.sign import collect, written_head
from broker.gateway.trailers import last_chunk, read_trailers
from broker.gateway.translate import agent_lines
from broker.gateway.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.gateway.authorize import Admission
    from broker.gateway.inject import Credential
    from broker.gateway.response import ResponseHead
    from broker.gateway.upstream import UpstreamConnection
    from broker.gateway.works import Client, Works
    from broker.model import Grant
    from broker.repeated import RepeatedRecord


class Relay:
    """One admitted request.

    It is `over` once the agent has nothing more to expect of it and its outcome is recorded.
    `deadline` is when `expire` is due, by the monotonic clock. Whatever happens sets it to None,
    and the next tick of the gateway's clock to that time plus `patience`: so events cost
    nothing, and deadlines are late by a tick.
    """

    def __init__(self, works: Works, client: Client, admission: Admission) -> None:
        self._works = works
        self._client = client
        self._admission = admission
        self._method = admission.request.method
        self._started = works.clock()
        self._intent: RepeatedRecord | None = None  # once it is handed to the trail
        self._durable = False
        self._credential: Credential | None = None
        self._upstream: UpstreamConnection | None = None
        self._upload: Upload | None = None
        self._retried = False
        self._head: ResponseHead | None = None
        self._scrubbing: Scrubbing | None = None
        self._chunks = False  # whether the response leaves in chunks
        self._keep = False
        self._held: list[bytes] | None = None  # of the response, until the intent is durable
        self._trailer = b""
        self._bytes_out = 0
        self._begun = False  # whether the agent has been sent a part of the response
        self._ended = False  # whether the upstream's response is complete
        self._client_slow = False
        self.deadline: float | None = None
        self.over = False
        fields = admission.request.fields
        if fields.has_body:
            self._upload = Upload(
                client,
                chunked=fields.chunked,
                buffer=works.limits.buffer_bytes,
                most=works.limits.body_bytes,
                expects=fields.expects,
            )

    @property
    def grant(self) -> Grant:
        """The grant that the request was admitted under."""
        return self._admission.grant

    @property
    def agent(self) -> str:
        """On whose behalf the request is made (`waiting.Waiter`)."""
        return self._admission.grant.agent

    @property
    def waiting(self) -> bool:
        """Whether an upstream connection is still wanted (`waiting.Waiter`)."""
        return not self.over and self._upstream is None

    def start(self) -> None:
        """Put the intent on record, and go ahead where that is safe before it is durable."""
        works = self._works
        credential = works.credentials.ready(self._admission)
        # Only with a credential at hand: to have one minted is an effect of its own.
        at_once = credential is not None and self._admission.safe
        try:
            self._intent = works.recorder.intend(
                self._admission, self._client.address, self._recorded, beside=at_once
            )
        except AuditUnavailable:
            self.over = True
            self._client.refuse(UNRECORDED)
            return
        if credential is not None and at_once:
            self._send(credential)

    def add(self, content: bytes) -> None:
        """Take bytes of the request's body."""
        if self._upload is None or self.over:
            return
        self._upload.add(content)
        if self._upload.size > self._upload.most:
            self.fail(too_large(self._upload.most))
        self.deadline = None

    def end(self, trailers: Sequence[bytes] = ()) -> None:
        """Take note that the request's body is complete, and of what came after it."""
        if self._upload is not None and not self.over:
            self._upload.end(trailers)
            self.deadline = None
            if self._upload.whole and self._upstream is None:
                self._works.pool.take(self._admission.route, self)

    def hung_up(self) -> None:
        """Give up, for the agent has closed its connection."""
        if not self.over:
            self._settle("error", None, "client_gone: the agent closed the connection")

    def client_full(self) -> None:
        """Read no more of the response, for the agent takes it slowly."""
        self._client_slow = True
        if self._upstream is not None:
            self._upstream.pause()
        self.deadline = None

    def client_ready(self) -> None:
        """Read on."""
        self._client_slow = False
        if self._upstream is not None:
            self._upstream.resume()
        self.deadline = None

    def patience(self) -> float:
        """Return how many seconds may pass before something must happen."""
        upstream, limits = self._admission.route.upstream, self._works.limits
        if not self._durable or self._credential is None:
            return limits.preparation_timeout
        if self._upstream is None and not self._collecting():
            return upstream.connect_timeout + 1  # the connector keeps the time itself
        if self._client_slow or (self._upload is not None and not self._upload.done):
            return limits.body_timeout
        return upstream.first_byte_timeout if self._head is None else upstream.idle_timeout

    def expire(self) -> None:
        """Give up, for somebody has not kept the deadline."""
        limits, upload = self._works.limits, self._upload
        if not self._durable:
            self.fail(UNRECORDED)
        elif self._credential is None:
            self.fail(Refusal("credential_unavailable", "the provider did not answer in time"))
        elif self._client_slow:
            self.fail(Refusal("request_timeout", "the agent takes the response too slowly"))
        elif upload and not (upload.done or upload.slow) and (self._upstream or upload.whole):
            detail = f"no more of the body came for {limits.body_timeout:g} s"
            self.fail(Refusal("request_timeout", detail, final=True))
        else:
            awaited = "more of the answer" if self._head else "an answer"
            self.fail(Refusal("upstream_timeout", f"the service did not send {awaited} in time"))

    def fail(self, refusal: Refusal) -> None:
        """Give up, and say why as long as the agent has seen nothing of a response."""
        if self.over:
            return
        status = self._head.status if self._begun and self._head else refusal.status
        self._settle("error", status, f"{refusal.code}: {refusal.note or refusal.detail}")
        if self._begun:
            self._client.abort()
        else:
            self._client.refuse(refusal)

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request with its credential (`waiting.Waiter`)."""
        if self._credential is None:
            raise RuntimeError("connected before there is a credential")
        self._upstream = connection
        self.deadline = None
        upload = self._upload
        try:
            head, coder = written_head(self._admission, self._credential, upload)
            if upload is not None and coder is None:
                head = upload.after(head)
            connection.begin(self, self._method, head, whole=upload is None)
            if upload is not None:
                upload.flow(connection, self._passing, coder)
        except Exception as error:  # noqa: BLE001 - a defect costs one request, not the gateway
            self.fail(unsent(error))

    def unconnected(self, refusal: Refusal) -> None:
        """Give up, for there is no connection to be had (`waiting.Waiter`)."""
        self.fail(refusal)

    def upstream_full(self) -> None:
        """Let the agent wait with the rest of its body (`upstream.Receiver`)."""
        if self._upload is not None:
            self._upload.brake()
            self.deadline = None

    def upstream_ready(self) -> None:
        """Let the agent go on with its body (`upstream.Receiver`)."""
        if self._upload is not None:
            self._upload.ease()
            self.deadline = None

    def answered(self, head: ResponseHead, content: bytes, *, done: bool) -> None:
        """Begin the response (`upstream.Receiver`)."""
        self._head = head
        # With a part of its body unread, the request is the last of its connection.
        self._keep = keep = self._client.lasting() and (not self._upload or self._upload.done)
        credential = self._credential
        if credential is None:
            raise RuntimeError("answered before there is a credential")
        scrubber = credential.scrubber
        if scrubber is not None:
            reason = head.unfit_to_search(self._method, ranges=credential.signer is not None)
            if reason is not None:
                if done:
                    self._upstream = None  # somebody else's by now
                self.fail(unsearchable(reason))
                return
            self._scrubbing = Scrubbing(scrubber)
            self._scrubbing.found = credential.is_shown_in(head.translated)
        lines = head.ready if keep and head.ready is not None else self._lines(head, credential)
        if self._scrubbing is not None and head.clean_for is not scrubber:
            lines = self._scrubbing.head(lines)
            if lines is head.ready:
                head.clean_for = scrubber
        self._pass_on(lines, content, done=done)

    def content(self, content: bytes, *, done: bool) -> None:
        """Go on with the response (`upstream.Receiver`)."""
        self._pass_on(b"", content, done=done)

    def trailed(self, lines: Sequence[bytes]) -> None:
        """Keep what may follow the response's body (`upstream.Receiver`)."""
        if self._head is not None and self._admission.request.fields.takes_trailers:
            fields = read_trailers(lines, self._head.trailers)
            section = b"".join(field.line() for field in fields)
            self._trailer = self._scrubbing.fields(section) if self._scrubbing else section

    def failed(self, refusal: Refusal, *, stale: bool) -> None:
        """Try once more where that is harmless, or give up (`upstream.Receiver`)."""
        self._upstream = None
        harmless = self._method in IDEMPOTENT and self._upload is None and not self._retried
        if stale and harmless:
            self._retried = True
            self._works.pool.take(self._admission.route, self, fresh=True)
        else:
            self.fail(refusal)

    def _recorded(self, error: Exception | None) -> None:
        if self.over:
            return
        if error is not None:
            self.fail(UNRECORDED)
            return
        self._durable = True
        if self._credential is not None:
            self._release()
            return
        credential = self._works.credentials.ready(self._admission)
        if credential is not None:
            self._send(credential)
        else:
            self._works.spawn(self._obtain())

    async def _obtain(self) -> None:
        try:
            credential = await self._works.credentials.obtain(self._admission)
        except Exception as error:  # noqa: BLE001 - a defect costs one request, not the gateway
            self.fail(no_credential(error))
        else:
            if not self.over:
                self._send(credential)

    def _passing(self, trailers: Sequence[bytes]) -> bytes:
        if self._credential is None:
            raise RuntimeError("a body ends before there is a credential")
        return passing_trailers(self._admission, self._credential, trailers)

    def _send(self, credential: Credential) -> None:
        self._credential = credential
        self.deadline = None
        try:
            refusal = collect(self._works, self._admission, credential, self._upload)
            if refusal is not None:
                self.fail(refusal)
            elif not self._collecting():
                self._works.pool.take(self._admission.route, self)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(unsent(error))

    def _collecting(self) -> bool:
        return self._upload is not None and self._upload.whole and not self._upload.done

    def _lines(self, head: ResponseHead, credential: Credential) -> bytes:
        self._chunks = head.length is None and head.has_body(self._method)
        lines = agent_lines(head, self._admission, credential, chunks=self._chunks)
        return lines + (b"\r\n" if self._keep else b"Connection: close\r\n\r\n")

    def _pass_on(self, lines: bytes, content: bytes, *, done: bool) -> None:
        if self._scrubbing is not None:
            content = self._scrubbing.content(content, done=done)
        self._bytes_out += len(content)
        if self._chunks:
            last = last_chunk(self._trailer) if done else b""
            content = (chunk(content) if content else b"") + last
        if done:
            self._ended = True
            self._upstream = None  # somebody else's by now
        if not self._durable:
            self._hold(lines + content)
            self._press(done=done)
            return
        self._begun = True
        self._client.write(lines + content)
        if done:
            self._answer_is_out()
        elif not self._client_slow:
            self.deadline = None

    def _hold(self, data: bytes) -> None:
        held = self._held = self._held or []
        held.append(data)
        if self._bytes_out > self._works.limits.buffer_bytes and self._upstream is not None:
            self._upstream.pause()

    def _press(self, *, done: bool) -> None:
        """Have the intent made durable that the response waits for."""
        intent, head, recorder = self._intent, self._head, self._works.recorder
        if intent is None or head is None:
            raise RuntimeError("a response without an intent")
        if done and not self._echoed():
            seconds = self._works.clock() - self._started
            recorder.answer(self._admission, intent, head.status, seconds, self._sizes())
        else:
            recorder.press(intent)

    def _release(self) -> None:
        if not self._held:
            return
        self._begun = True
        self._client.write(b"".join(self._held))
        self._held = None
        if self._ended:
            self._answer_is_out()
        elif self._upstream is not None and not self._client_slow:
            self._upstream.resume()

    def _answer_is_out(self) -> None:
        self._settle("allow", self._head.status if self._head else None)
        self._client.finish(keep=self._keep)

    def _settle(
        self, decision: Literal["allow", "error"], status: int | None, detail: str | None = None
    ) -> None:
        self.over = True
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None
        if self._upload is not None and self._upload.room:
            self._works.whole_bodies.give(self.agent, self._upload.room)
        if self._intent is not None:
            seconds = self._works.clock() - self._started
            result = (decision, status, detail, self._echoed())
            self._works.recorder.settle(
                self._admission, self._intent, result, seconds, self._sizes()
            )

    def _sizes(self) -> tuple[int, int]:
        return (self._upload.size if self._upload is not None else 0), self._bytes_out

    def _echoed(self) -> bool:
        return self._scrubbing is not None and self._scrubbing.found
