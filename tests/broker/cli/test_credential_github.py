"""`broker credential github` and `git` before a broker that is played, and a git that is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.cli.credential_github import attributes
from tests.broker.cli.test_token import answering, on_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.cli.conftest import Commands

TOKEN = "ghs_12345_eyJ.x-y_z" + "a" * 300
ANSWER = {
    "access_token": "a.b.c",
    "scope": "repo.write",
    "expires_at": 2_750_000_900,
    "credential": {"token": TOKEN},
}
QUESTION = "protocol=https\nhost=github.com\npath=acme/shop.git\nwwwauth[]=Basic\n\n"
REPLY = f"username=x-access-token\npassword={TOKEN}\npassword_expiry_utc=2750000900\n"


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, list[str]]]]:
    """What a broker was asked that always gives the token."""
    with answering(200, json.dumps(ANSWER).encode()) as (port, forms):
        on_port(monkeypatch, port)
        yield forms


def test_prints_the_token_alone(broker: Commands, forms: list[dict[str, list[str]]]) -> None:
    assert broker.ok("credential", "github", "repo.write", "--ttl", "5m").out == TOKEN + "\n"
    assert (forms[0]["scope"], forms[0]["ttl"]) == (["repo.write"], ["300"])


def test_answers_git(broker: Commands, forms: list[dict[str, list[str]]]) -> None:
    ran = broker.ok("credential", "git", "repo.write", "get", stdin=QUESTION)
    assert ran.out == REPLY
    assert forms[0]["scope"] == ["repo.write"]


@pytest.mark.parametrize(
    ("operation", "question"),
    [
        ("store", QUESTION),
        ("erase", QUESTION),
        ("capability", ""),
        ("get", ""),
        ("get", "\n" + QUESTION),
        ("get", QUESTION.replace("https", "http")),
        ("get", QUESTION.replace("github.com", "evil.example")),
        ("get", QUESTION.replace("github.com", "github.com.evil.example")),
        ("get", QUESTION.replace("github.com", "github.com:8443")),
        ("get", QUESTION.replace("github.com", "GITHUB.COM")),
        ("get", QUESTION.replace("host=github.com", "host=github.com\nhost=evil.example")),
    ],
)
def test_the_token_is_for_one_host_alone(
    broker: Commands, forms: list[dict[str, list[str]]], operation: str, question: str
) -> None:
    assert broker.ok("credential", "git", "repo.write", operation, stdin=question).out == ""
    assert forms == []


def test_the_host_may_be_an_enterprises(
    broker: Commands, forms: list[dict[str, list[str]]]
) -> None:
    command = ("credential", "git", "repo.write", "get", "--host", "ghe.example")
    assert broker.ok(*command, stdin=QUESTION).out == ""
    asked = QUESTION.replace("github.com", "ghe.example")
    assert broker.ok(*command, stdin=asked).out == REPLY
    assert forms


def test_the_real_git_takes_what_it_is_told(
    broker: Commands, forms: list[dict[str, list[str]]]
) -> None:
    helper = f"!{sys.executable} -m broker.cli credential git repo.write"
    only = ("-c", "credential.helper=", "-c", f"credential.helper={helper}")
    ran = subprocess.run(
        ["git", *only, "credential", "fill"],
        input="url=https://github.com/acme/shop.git\n\n",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(broker.home), "GIT_TERMINAL_PROMPT": "0"},
    )
    filled = attributes(ran.stdout)
    assert (filled["username"], filled["password"]) == ("x-access-token", TOKEN)
    assert forms


@pytest.mark.parametrize("credential", [{"password": "hunter2"}, {"token": "a\nhost=evil"}, {}])
@pytest.mark.parametrize("shape", [("github", "x"), ("git", "x", "get")])
def test_what_is_no_token_is_not_printed_as_one(
    broker: Commands,
    monkeypatch: pytest.MonkeyPatch,
    credential: dict[str, str],
    shape: tuple[str, ...],
) -> None:
    with answering(200, json.dumps(ANSWER | {"credential": credential}).encode()) as (port, _):
        on_port(monkeypatch, port)
        ran = broker.run("credential", *shape, stdin=QUESTION)
    assert (ran.status, ran.out) == (1, "")
    assert "has no GitHub token" in ran.err
    assert "hunter2" not in ran.err


def test_a_scope_must_be_named(broker: Commands) -> None:
    assert broker.run("credential", "github").status == 2
    assert broker.run("credential", "git", "get").status == 2
