"""One line for each event, for people.

    2026-03-15T10:23:45Z | agent:release-bot | stripe | GET /v1/charges | 200 | 142ms
    2026-03-15T10:23:46Z | agent:release-bot | stripe | POST /v1/refunds | BLOCKED | <why>

When, who, with what, what was asked, how it ended, and how long it took or why it ended so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.audit.redaction import safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.audit.query import Event

_SECONDS: Final = len("2026-03-15T10:23:45")


def event_line(event: Event) -> str:
    """Return an event as one printable line."""
    fields = event.fields
    return " | ".join(
        safe_line(part)
        for part in (
            str(fields.get("time", "-"))[:_SECONDS] + "Z",
            _who(fields),
            str(fields.get("service") or str(fields.get("action", "-")).partition(".")[0]),
            _what(fields),
            *(
                _result(fields)
                if event.outcome is not None
                else ("NO OUTCOME", "under way, or cut short")
            ),
        )
    )


def _who(fields: Mapping[str, Any]) -> str:
    if agent := fields.get("agent"):
        return f"agent:{agent}"
    return str(fields.get("subject") or fields.get("writer") or "-")


def _what(fields: Mapping[str, Any]) -> str:
    if method := fields.get("method"):
        return f"{method} {fields.get('path') or '-'}"
    action = str(fields.get("action", "-"))
    return f"{action} {fields['scope']}" if fields.get("scope") else action


def _result(fields: Mapping[str, Any]) -> tuple[str, ...]:
    detail = fields.get("detail")
    match fields.get("decision"):
        case "deny":
            return "BLOCKED", str(detail or fields.get("rule") or "no reason was recorded")
        case "error":
            return "FAILED", str(detail or "no reason was recorded")
    latency = fields.get("latency_ms")
    took = () if latency is None else (f"{latency:.0f}ms",)
    return str(fields.get("status") or "OK"), *took, *((str(detail),) if detail else ())
