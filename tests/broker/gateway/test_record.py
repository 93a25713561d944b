from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from broker.audit.redaction import redact_path
from broker.errors import AuditUnavailable
from broker.gateway.authorize import Admission, Claim, Rejection
from broker.gateway.grammar import Field
from broker.gateway.metrics import GatewayMetrics
from broker.gateway.problems import Refusal
from broker.gateway.record import ECHOED, Recorder, Result
from broker.gateway.request import Request, RequestFields
from broker.gateway.route import Route
from broker.model import Allow, AuditRecord, Grant
from broker.repeated import RepeatedRecord
from tests.fakes.gateway import policy, policy_text

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = policy(policy_text(), 8080)
GRANT = Grant("j1", "tester", "local", "sub", ("api.all",), 0, 9, "v0", "c", task="t", reason="r")


@dataclass
class Lines:
    """A trail that keeps its records in memory, or refuses them."""

    records: list[AuditRecord] = field(default_factory=list)
    works: bool = True
    beside: list[RepeatedRecord] = field(default_factory=list)

    def append(
        self,
        record: AuditRecord | RepeatedRecord,
        durable: Callable[[Exception | None], None] | None = None,
    ) -> None:
        if not self.works:
            raise AuditUnavailable("disk full")
        if isinstance(record, RepeatedRecord):
            record.written = True
            record = record.whole()
        self.records.append(record)
        if durable is not None:
            durable(None)

    def append_beside(
        self, record: RepeatedRecord, durable: Callable[[Exception | None], None]
    ) -> None:
        record.beside = durable
        self.beside.append(record)

    def press(self, record: RepeatedRecord) -> None:
        durable, record.beside = record.beside, None
        if durable is not None:
            self.append(record, durable)

    async def record(self, record: AuditRecord) -> None:
        self.append(record)


def request(query: bytes | None = None) -> Request:
    fields = RequestFields(b"", (Field(b"host", b"Host", b"g"),), 0)
    return Request(b"POST", b"/api/v1/x", query, fields, 0)


def admission(query: bytes | None = None) -> Admission:
    service = POLICY.services["api"]
    assert service.upstream is not None
    route = Route(POLICY, service, service.upstream)
    return Admission(request(query), route, GRANT, Allow("api.all", "* /**", "medium"), b"/v1/x")


def recorder(trail: Lines) -> Recorder:
    return Recorder(trail, redact_path, GatewayMetrics())


def test_intent_and_outcome_of_one_operation() -> None:
    trail = Lines()
    durable: list[Exception | None] = []
    admitted = admission(b"key=secret")
    handed = recorder(trail).intend(admitted, "192.0.2.1", durable.append)
    assert durable == [None]
    recorder(trail).settle(admitted, handed, ("allow", 201, None, False), 0.0123456, (5, 7))
    intent, outcome = trail.records
    assert handed.operation == intent.operation
    assert type(intent) is type(outcome) is AuditRecord
    assert (
        intent._asdict() | {"time": 0}
        == AuditRecord(
            time=0,
            action="proxy.request",
            phase="intent",
            operation=intent.operation,
            decision="allow",
            agent="tester",
            issuer="local",
            subject="sub",
            grant="j1",
            task="t",
            reason="r",
            service="api",
            scope="api.all",
            rule="* /**",
            method="POST",
            path="/v1/x?key=…",
            risk="medium",
            policy_version=POLICY.version,
            source_address="192.0.2.1",
        )._asdict()
    )
    assert outcome == intent._replace(
        time=outcome.time,
        phase="outcome",
        status=201,
        latency_ms=12.345,
        bytes_in=5,
        bytes_out=7,
    )


def test_operations_are_never_named_alike() -> None:
    trail = Lines()
    for _ in range(3):
        writer = recorder(trail)
        for _ in range(3):
            writer.intend(admission(), None, lambda _: None)
    assert len({record.operation for record in trail.records}) == 9


@pytest.mark.parametrize(
    ("code", "decision"),
    [("policy_denied", "deny"), ("token_missing", "deny"), ("overloaded", "error")],
)
def test_a_refusal_is_one_record(code: str, decision: str) -> None:
    trail = Lines()
    refusal = Refusal(code, "no", rule="* /x", note="10.0.0.1")
    rejection = Rejection(refusal, "api", b"/v1/x", GRANT, "v1")
    assert recorder(trail).reject(rejection, request(), "192.0.2.1")
    (record,) = trail.records
    assert (record.phase, record.decision, record.rule) == ("outcome", decision, "* /x")
    assert (record.agent, record.grant, record.policy_version) == ("tester", "j1", "v1")
    assert (record.method, record.path) == ("POST", "/v1/x")
    assert record.status == refusal.status
    assert record.detail == f"{code}: 10.0.0.1"


def test_a_refusal_of_which_nothing_is_known() -> None:
    trail = Lines()
    assert recorder(trail).reject(Rejection(Refusal("malformed_request", "bad")), None, None)
    (record,) = trail.records
    assert (record.agent, record.service, record.method, record.path) == (None,) * 4
    assert record.detail == "malformed_request: bad"


def test_a_refusal_before_its_service_is_known_keeps_the_whole_path() -> None:
    trail = Lines()
    recorder(trail).reject(Rejection(Refusal("token_missing", "none")), request(), None)
    assert trail.records[0].path == "/api/v1/x"


def test_a_trail_that_fails() -> None:
    trail = Lines()
    writer = recorder(trail)
    admitted = admission()
    intent = writer.intend(admitted, None, lambda _: None)
    trail.works = False
    with pytest.raises(AuditUnavailable):
        writer.intend(admission(), None, lambda _: None)
    assert not writer.reject(Rejection(Refusal("token_missing", "none")), None, None)
    writer.settle(admitted, intent, ("allow", 200, None, False), 0.1, (0, 0))
    assert len(trail.records) == 1


def test_a_request_that_is_repeated_is_recorded_anew() -> None:
    trail, admitted = Lines(), admission()
    writer = recorder(trail)
    for number in range(3):
        intent = writer.intend(admitted, "192.0.2.1", lambda _: None)
        writer.settle(admitted, intent, ("allow", 200 + number, None, False), 0.1, (0, number))
    assert [record.status for record in trail.records] == [None, 200, None, 201, None, 202]
    assert len({record.operation for record in trail.records}) == 3
    assert {record.source_address for record in trail.records} == {"192.0.2.1"}


def test_an_echo_is_on_record() -> None:
    trail, admitted = Lines(), admission()
    writer = recorder(trail)
    for detail in (None, "upstream_closed: cut"):
        intent = writer.intend(admitted, None, lambda _: None)
        writer.settle(admitted, intent, ("allow", 200, detail, True), 0.1, (0, 0))
    details = [record.detail for record in trail.records if record.phase == "outcome"]
    assert details == [ECHOED, f"upstream_closed: cut; {ECHOED}"]


def test_an_outcome_follows_an_intent() -> None:
    writer = recorder(Lines())
    intent = writer.intend(admission(), None, lambda _: None)
    with pytest.raises(RuntimeError):
        writer.settle(admission(), intent, ("allow", 200, None, False), 0.1, (0, 0))


def test_of_a_strangers_path_whole_segments_are_kept_up_to_a_kibibyte() -> None:
    trail = Lines()
    long = Request(b"GET", b"/api/" + b"part/" * 300 + b"end", None, request().fields, 0)
    for grant in (None, GRANT):
        rejection = Rejection(Refusal("token_invalid", "expired"), None, None, grant)
        assert recorder(trail).reject(rejection, long, None)
    stranger, known = (record.path for record in trail.records)
    assert stranger is not None
    assert known is not None
    assert stranger.startswith("/api/part/part/")
    assert stranger.endswith("… [cut: 1508 bytes]")
    assert known == redact_path(long.path)
    odd = Request(b"GET", b"/" + b"%" * 8000, None, request().fields, 0)
    recorder(trail).reject(Rejection(Refusal("token_missing", "none")), odd, None)
    assert trail.records[-1].path == "/… [cut: 8001 bytes]"


def test_a_denial_shows_which_parameters_were_there() -> None:
    trail = Lines()
    denied = Refusal("policy_denied", "no")
    asked = request(b"token=abc&limit=3")
    for path in (b"/v1/x", None):
        recorder(trail).reject(Rejection(denied, "api", path, GRANT, "v1"), asked, None)
    recorder(trail).reject(Rejection(Refusal("token_missing", "none")), asked, None)
    of_known, of_unknown_service, of_stranger = (record.path for record in trail.records)
    assert of_known == redact_path(b"/v1/x?token=abc&limit=3")
    assert of_unknown_service == redact_path(b"/api/v1/x?token=abc&limit=3")
    assert of_stranger == "/api/v1/x"
    assert "abc" not in of_known


def test_an_answer_before_its_intent_is_written_makes_one_record_of_two() -> None:
    trail, admitted = Lines(), admission()
    durable: list[Exception | None] = []
    writer = recorder(trail)
    intent = writer.intend(admitted, "192.0.2.1", durable.append, beside=True)
    assert trail.records == []
    writer.answer(admitted, intent, 200, 0.0123456, (0, 7))
    assert durable == [None]
    writer.settle(admitted, intent, ("allow", 200, None, False), 0.5, (0, 7))
    (outcome,) = trail.records
    assert (outcome.phase, outcome.decision, outcome.status) == ("outcome", "allow", 200)
    assert (outcome.operation, outcome.grant) == (intent.operation, "j1")
    assert (outcome.latency_ms, outcome.bytes_in, outcome.bytes_out) == (12.345, 0, 7)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (("error", None, "client_gone: x", False), ("error", None, "client_gone: x")),
        (("allow", 200, None, True), ("allow", 200, ECHOED)),
    ],
)
def test_what_goes_wrong_after_the_answer_is_on_record_too(
    result: Result, said: tuple[str, int | None, str]
) -> None:
    trail, admitted = Lines(), admission()
    writer = recorder(trail)
    intent = writer.intend(admitted, None, lambda _: None, beside=True)
    writer.answer(admitted, intent, 200, 0.1, (0, 7))
    writer.settle(admitted, intent, result, 0.1, (0, 7))
    first, second = trail.records
    assert first.operation == second.operation
    assert (first.phase, first.decision, first.detail) == ("outcome", "allow", None)
    assert (second.decision, second.status, second.detail) == said


def test_an_intent_that_is_written_stays_one() -> None:
    trail, admitted = Lines(), admission()
    writer = recorder(trail)
    intent = writer.intend(admitted, None, lambda _: None)
    writer.answer(admitted, intent, 200, 0.1, (0, 7))
    writer.settle(admitted, intent, ("allow", 200, None, False), 0.1, (0, 7))
    assert [record.phase for record in trail.records] == ["intent", "outcome"]


def test_an_intent_that_says_more_than_an_outcome_stays_one() -> None:
    trail, admitted = Lines(), admission()
    admitted.claim = Claim(b"t", b"d", None, (Field(b"x-copy-source", b"X-Copy-Source", b"/b/o"),))
    writer = recorder(trail)
    intent = writer.intend(admitted, None, lambda _: None, beside=True)
    writer.answer(admitted, intent, 200, 0.1, (0, 7))
    writer.settle(admitted, intent, ("allow", 200, None, False), 0.1, (0, 7))
    assert [record.phase for record in trail.records] == ["intent", "outcome"]
    assert trail.records[0].detail == "x-copy-source: /b/o"


def test_an_intent_comes_before_its_outcome_though_nobody_waited_for_it() -> None:
    trail, admitted = Lines(), admission()
    writer = recorder(trail)
    intent = writer.intend(admitted, None, lambda _: None, beside=True)
    writer.settle(admitted, intent, ("error", 502, "upstream_closed: x", False), 0.1, (0, 0))
    assert [record.phase for record in trail.records] == ["intent", "outcome"]
