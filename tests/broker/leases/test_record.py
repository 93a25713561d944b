from __future__ import annotations

from broker.leases.record import MINT, Attempt, revocation
from tests.contracts.leases import LEASE, NOW
from tests.fakes.lease_bench import GRANT


def test_a_request_of_a_stranger_is_a_record_too() -> None:
    attempt = Attempt(lambda: NOW, lambda: 5.0, "anything", "192.0.2.9")
    record = attempt.record("outcome", "deny", "invalid_token: no", "trust")
    assert (record.action, record.phase, record.decision) == (MINT, "outcome", "deny")
    assert (record.agent, record.grant, record.service) == (None, None, None)
    assert (record.scope, record.source_address) == ("anything", "192.0.2.9")
    assert (record.rule, record.detail) == ("trust", "invalid_token: no")
    assert record.latency_ms == 0.0


def test_what_is_known_later_is_in_later_records() -> None:
    attempt = Attempt(lambda: NOW, lambda: 5.0, "db.read", None)
    first = attempt.record("intent", "allow")
    attempt.grant, attempt.service, attempt.lease = GRANT, "postgres", LEASE
    second = attempt.record("outcome", "error", "it broke")
    assert first.operation == second.operation
    assert first.latency_ms is None
    assert (second.agent, second.reason, second.task) == ("coder", None, "tidy up")
    assert second.detail == "lease lease-1; it broke"


def test_an_end_is_on_record_with_what_led_to_it() -> None:
    record = revocation(LEASE, NOW, "allow", "revoked")
    assert (record.grant, record.agent, record.scope) == ("grant-1", "release-bot", "db.read")
    assert record.detail == "lease lease-1; revoked"
