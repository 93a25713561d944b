from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.api.oauth import (
    Answer,
    UnreadableRequest,
    failed,
    refused,
    send_answer,
    unavailable,
)
from broker.errors import AuditUnavailable, IssuerUnavailable, StorageError, TokenRefused


def test_a_refusal_names_its_record() -> None:
    refusal = TokenRefused("invalid_scope", "no such scope")
    refusal.operation = "0123abcd"
    answer = refused(refusal)
    assert (answer.status, answer.document["error"]) == (400, "invalid_scope")
    assert (b"broker-operation", b"0123abcd") in answer.headers
    assert (b"broker-error", b"invalid_scope") in answer.headers
    assert refused(refusal, 401).status == 401


def test_an_unreadable_request_has_its_own_status_and_headers() -> None:
    allow = (b"allow", b"POST")
    answer = refused(UnreadableRequest(405, "use POST", cause="method", headers=(allow,)), 400)
    assert (answer.status, answer.document["error"]) == (405, "invalid_request")
    assert allow in answer.headers


@given(st.text())
def test_a_description_has_the_characters_that_rfc_6749_allows(text: str) -> None:
    description = refused(TokenRefused("invalid_request", text)).document["error_description"]
    assert all(" " <= one <= "~" and one not in {'"', "\\"} for one in description)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AuditUnavailable("disk full"), "the audit trail cannot record, so nothing is done"),
        (StorageError("locked"), "storage does not work"),
        (IssuerUnavailable("no route"), "issuer cannot be had"),
    ],
)
def test_whoever_cannot_be_served_is_to_come_again(error: Exception, told: str) -> None:
    answer = unavailable(error, "nothing is done")
    assert (answer.status, answer.document["error"]) == (503, "temporarily_unavailable")
    assert told in answer.document["error_description"]
    assert str(error) not in answer.document["error_description"]
    assert (b"retry-after", b"5") in answer.headers


def test_a_defect_names_its_log_entry() -> None:
    answer = failed("feedc0de")
    assert answer.status == 500
    assert "feedc0de" in answer.document["error_description"]


async def test_nobody_may_keep_an_answer() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_answer(Answer(200, {"active": False}, ((b"x-more", b"1"),)), send)
    head, body = sent
    headers = dict(head["headers"])
    assert (head["status"], json.loads(body["body"])) == (200, {"active": False})
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"16"
    assert headers[b"x-more"] == b"1"
