"""Hold a request against its limits while it is under way.

Of requests without limits nothing of this is ever made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from broker.errors import LimitsUnavailable
from broker.gateway.problems import UNRECORDED, Refusal, over_limit, over_size, report
from broker.gateway.relay import Relay
from broker.limits.quota import Exceeded

if TYPE_CHECKING:
    from broker.gateway.authorize import Admission
    from broker.gateway.request import RequestFields
    from broker.gateway.response import ResponseHead
    from broker.gateway.works import Client, Works
    from broker.limits.base import Ticket
    from broker.limits.limiter import Limiter
    from broker.limits.quota import LimitKind, Quota

UNCOUNTED: Final = Refusal(
    "limits_unavailable", "the broker cannot count requests now; try again later"
)
"""The refusal of what has limits while it cannot be counted."""

GONE: Final = Refusal(
    "request_timeout", "the agent closed the connection before its request could be counted"
)
"""What is on record of a request whose agent hangs up while its limits are asked for."""


class Meter:
    """What one request counts against; its places are given back by `end`, once.

    `counted` is true once the request may go on.
    """

    __slots__ = ("_limiter", "_quota", "_received", "_ticket", "counted")

    def __init__(self, limiter: Limiter | None, quota: Quota) -> None:
        self._limiter = limiter
        self._quota = quota
        self._ticket: Ticket | None = None
        self._received = 0
        self.counted = False

    def count(self, fields: RequestFields) -> Refusal | None:
        """Count the request, or say why not; what is still not `counted` waits for `counting`."""
        too_large = self.upload(fields.length or 0)
        if too_large is not None:
            return too_large
        if not self._quota.counted:
            self.counted = True
            return None
        if self._limiter is None:
            return UNCOUNTED
        return self._take(self._limiter.take_now(self._quota, "gateway"))

    async def counting(self) -> Refusal | None:
        """Count the request where that has to wait for somebody; return why it may not go on."""
        if self._limiter is None:
            return UNCOUNTED
        try:
            outcome = await self._limiter.take(self._quota, "gateway")
        except LimitsUnavailable as error:
            return Refusal(UNCOUNTED.code, UNCOUNTED.detail, note=str(error))
        except Exception as error:  # noqa: BLE001 - a defect costs one request, not the gateway
            report(error, "counting a request")
            return Refusal("internal_error", "the gateway could not count the request")
        return self._take(outcome)

    def upload(self, size: int) -> Refusal | None:
        """Say what is wrong with a request body of which `size` bytes have come."""
        cap = self._quota.request_bytes
        if cap is None or size <= cap.most:
            return None
        self._note("request_bytes")
        return over_size("body_too_large", cap.name)

    def download(self, head: ResponseHead | None, method: bytes, more: int) -> Refusal | None:
        """Say what is wrong with a response of which so many bytes more have come."""
        cap = self._quota.response_bytes
        if cap is None:
            return None
        size = self._received = self._received + more
        if head is not None and head.length is not None and head.has_body(method):
            size = max(size, head.length)
        if size <= cap.most:
            return None
        self._note("response_bytes")
        return over_size("response_too_large", cap.name)

    def end(self) -> None:
        """Give back the request's places."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None and self._limiter is not None:
            self._limiter.give_back(ticket)

    def _take(self, outcome: Ticket | Exceeded | None) -> Refusal | None:
        if isinstance(outcome, Exceeded):
            return over_limit(outcome)
        self._ticket = outcome
        self.counted = outcome is not None
        return None

    def _note(self, kind: LimitKind) -> None:
        if self._limiter is not None:
            self._limiter.refused("gateway", kind)


class Metered(Relay):
    """One admitted request that may have limits: it is counted before it is on record at all."""

    def __init__(self, works: Works, client: Client, admission: Admission) -> None:
        super().__init__(works, client, admission)
        quota = admission.quota
        self._meter = None if quota is None else Meter(works.limiter, quota)

    def start(self) -> None:
        """Count the request; go ahead at once, once it is counted, or not at all."""
        meter = self._meter
        if meter is not None and not meter.counted:
            refusal = meter.count(self._admission.request.fields)
            if refusal is not None:
                self.fail(refusal)
                return
            if not meter.counted:
                self._works.spawn(self._wait(meter))
                return
        super().start()
        if self.over:
            self._end()

    def add(self, content: bytes) -> None:
        """Take bytes of the request's body, if it may have so many."""
        if self._upload is None or self.over:
            return
        meter = self._meter
        excess = None if meter is None else meter.upload(self._upload.size + len(content))
        if excess is None:
            super().add(content)
        else:
            self.fail(excess)

    def hung_up(self) -> None:
        """Give up, for the agent has closed its connection."""
        if self._uncounted():
            self._turn_away(GONE)
        else:
            super().hung_up()

    def expire(self) -> None:
        """Give up, for somebody has not kept the deadline."""
        if self._uncounted():
            self.fail(UNCOUNTED)
        else:
            super().expire()

    def fail(self, refusal: Refusal) -> None:
        """Give up, and say why as long as the agent has seen nothing of a response."""
        if self._uncounted():
            self._client.refuse(self._turn_away(refusal))
        else:
            super().fail(refusal)

    def _pass_on(self, lines: bytes, content: bytes, *, done: bool) -> None:
        meter, excess = self._meter, None
        if meter is not None:
            excess = meter.download(self._head, self._method, len(content))
        if excess is None:
            super()._pass_on(lines, content, done=done)
            return
        if done:
            self._upstream = None  # somebody else's by now
        self.fail(excess)

    def _settle(
        self, decision: Literal["allow", "error"], status: int | None, detail: str | None = None
    ) -> None:
        super()._settle(decision, status, detail)
        self._end()

    async def _wait(self, meter: Meter) -> None:
        """Start once the request is counted."""
        refusal = await meter.counting()
        if self.over:
            self._end()
        elif refusal is not None:
            self.fail(refusal)
        else:
            self.deadline = None
            try:
                self.start()
            except Exception as error:  # noqa: BLE001 - as above
                report(error, "starting a request")
                self.fail(Refusal("internal_error", "the gateway could not handle the request"))

    def _turn_away(self, refusal: Refusal) -> Refusal:
        """Put on record that the request goes no further, and return what to say."""
        self.over = True
        self._end()
        admission, recorder = self._admission, self._works.recorder
        rejection = admission.rejected(refusal)
        recorded = recorder.reject(rejection, admission.request, self._client.address)
        return refusal if recorded else UNRECORDED

    def _uncounted(self) -> bool:
        """Tell whether nothing is on record yet, for it is still being counted."""
        return self._meter is not None and self._intent is None and not self.over

    def _end(self) -> None:
        if self._meter is not None:
            self._meter.end()
