"""`broker credential` before a broker that is played; before a real one in tests/attacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.broker.cli.test_token import answering, on_port
from tests.components.process import free_port

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands

ANSWER = {
    "access_token": "a.b.c",
    "lease": "lease-1",
    "service": "db",
    "scope": "db.read",
    "expires_at": 1_750_000_000,
    "credential": {"username": "v-1", "password": "hunter2"},
}


@pytest.mark.parametrize("words", [("db.read",), ("get", "db.read")])
def test_prints_the_parts_and_nothing_else(
    broker: Commands, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    with answering(200, json.dumps(ANSWER).encode()) as (port, forms):
        on_port(monkeypatch, port)
        ran = broker.ok("credential", *words, "--task", "t", "--ttl", "5m")
        assert ran.out == "username=v-1\npassword=hunter2\n"
        assert broker.ok("credential", *words, "--json").data == ANSWER
    assert forms[0]["scope"] == ["db.read"]
    assert forms[0]["ttl"] == ["300"]


def test_without_a_broker_it_says_how_to_start_one(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_port(monkeypatch, free_port())
    assert "broker serve" in broker.refused("credential", "db.read")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"access_token": "a.b.c", "detail": "never\u001b[2J leaves"}, "refused: never\\x1b[2J"),
        ({"access_token": "a.b.c"}, "credentials is not a broker"),
        ({"access_token": "a.b.c", "credential": "hunter2"}, "credentials is not a broker"),
        ({"error": "invalid_scope"}, "refused: invalid_scope"),
    ],
)
def test_a_refusal_is_told_and_nothing_printed(
    broker: Commands, monkeypatch: pytest.MonkeyPatch, body: dict[str, str], told: str
) -> None:
    with answering(200, json.dumps(body).encode()) as (port, _):
        on_port(monkeypatch, port)
        ran = broker.run("credential", "db.read")
    assert (ran.status, ran.out) == (1, "")
    assert told in ran.err
    assert "hunter2" not in ran.err


def test_a_scope_must_be_named(broker: Commands) -> None:
    assert broker.run("credential", "get").status == 2
    assert "get" in broker.run("credential").out
