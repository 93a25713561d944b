from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.query import Event
from broker.audit.render import event_line

REQUEST: dict[str, Any] = {
    "writer": "main",
    "time": "2026-03-15T10:23:45.123456Z",
    "action": "proxy.request",
    "phase": "outcome",
    "operation": "op-1",
    "decision": "allow",
    "agent": "release-bot",
    "service": "stripe",
    "method": "GET",
    "path": "/v1/charges",
    "status": 200,
    "latency_ms": 142.4,
}


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (REQUEST | changes).items() if name not in names}


TOKEN = without("service", "method", "path", "status", action="token.exchange", latency_ms=3.7)
SECRET = {"writer": "cli", "time": REQUEST["time"], "action": "secret.put", "decision": "allow"}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (REQUEST, "agent:release-bot | stripe | GET /v1/charges | 200 | 142ms"),
        (
            without(decision="deny", method="POST", status=403, detail="no rule"),
            "agent:release-bot | stripe | POST /v1/charges | BLOCKED | no rule",
        ),
        (
            without(decision="deny", rule="* /v1/**"),
            "agent:release-bot | stripe | GET /v1/charges | BLOCKED | * /v1/**",
        ),
        (
            without(decision="error", detail="no answer"),
            "agent:release-bot | stripe | GET /v1/charges | FAILED | no answer",
        ),
        (
            {**TOKEN, "scope": "stripe.read issues.write"},
            "agent:release-bot | token | token.exchange stripe.read issues.write | OK | 4ms",
        ),
        (
            {**TOKEN, "agent": None, "subject": "repo:acme/app", "decision": "deny", "detail": "x"},
            "repo:acme/app | token | token.exchange | BLOCKED | x",
        ),
        (
            {**SECRET, "detail": "embedded:stripe, version 2"},
            "cli | secret | secret.put | OK | embedded:stripe, version 2",
        ),
        (
            {"time": REQUEST["time"], "writer": "main", "action": "audit.recover", "detail": "x"},
            "main | audit | audit.recover | OK | x",
        ),
        ({"time": REQUEST["time"]}, "- | - | - | OK"),
    ],
)
def test_lines(fields: dict[str, Any], line: str) -> None:
    assert event_line(Event(None, fields)) == f"2026-03-15T10:23:45Z | {line}"


def test_an_intent_without_an_outcome_says_so() -> None:
    assert event_line(Event(without("status", "latency_ms", phase="intent"), None)) == (
        "2026-03-15T10:23:45Z | agent:release-bot | stripe | GET /v1/charges | NO OUTCOME | "
        "under way, or cut short"
    )


@given(st.dictionaries(st.sampled_from([*REQUEST, "detail", "subject"]), st.text(st.characters())))
def test_whatever_a_record_holds_one_printable_line_comes_out(fields: dict[str, Any]) -> None:
    fields.pop("latency_ms", None)
    assert event_line(Event(None, fields)).isprintable()
