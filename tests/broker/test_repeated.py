from __future__ import annotations

from broker.repeated import RecordTemplate, RepeatedRecord
from tests.broker.audit.trails import record


def test_a_repeated_record_is_its_template_but_for_what_is_its_own() -> None:
    template = RecordTemplate(record(operation="another", status=418, detail="fine"))
    repeated = RepeatedRecord(7.0, template, "mine", 200, 1.5, 2, 3)
    assert repeated.whole() == template.record._replace(
        time=7.0, operation="mine", status=200, latency_ms=1.5, bytes_in=2, bytes_out=3
    )


def test_an_intent_becomes_an_outcome() -> None:
    intent, outcome = (RecordTemplate(record(phase=phase)) for phase in ("intent", "outcome"))
    repeated = RepeatedRecord(7.0, intent, "mine")
    assert not repeated.written
    assert (repeated.whole().phase, repeated.whole().status) == ("intent", None)
    repeated.template, repeated.status = outcome, 200
    assert (repeated.whole().phase, repeated.whole().status) == ("outcome", 200)
