"""`broker credential aws` before a broker that is played; before a real one in integration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.broker.cli.test_token import answering, on_port

if TYPE_CHECKING:
    import pytest

    from tests.broker.cli.conftest import Commands

SESSION = {"AccessKeyId": "ASIA1", "SecretAccessKey": "hunter2", "SessionToken": "t/+="}
ANSWER = {
    "access_token": "a.b.c",
    "scope": "s3.read",
    "expires_at": 1_750_000_900,
    "credential": SESSION,
}


def test_prints_what_a_credential_process_prints(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, json.dumps(ANSWER).encode()) as (port, forms):
        on_port(monkeypatch, port)
        ran = broker.ok("credential", "aws", "s3.read", "--ttl", "1h", "--task", "build")
    assert ran.data == {"Version": 1, **SESSION, "Expiration": "2025-06-15T15:21:40Z"}
    assert (forms[0]["scope"], forms[0]["ttl"]) == (["s3.read"], ["3600"])


def test_what_is_no_session_is_not_printed_as_one(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ANSWER | {"credential": {"password": "hunter2"}}
    with answering(200, json.dumps(answer).encode()) as (port, _):
        on_port(monkeypatch, port)
        told = broker.refused("credential", "aws", "db.read")
    assert "has no AWS session" in told
    assert "hunter2" not in told


def test_a_scope_must_be_named(broker: Commands) -> None:
    assert broker.run("credential", "aws").status == 2
