from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.app.home import Places, open_keys
from broker.app.trail import trusted_keys
from broker.audit.journal import Journal, Rotation
from broker.settings import load_settings
from tests.broker.audit.trails import record

if TYPE_CHECKING:
    from broker.model import AuditRecord
    from tests.broker.cli.conftest import Commands


def journal_of(broker: Commands) -> Journal:
    settings = load_settings(broker.home)
    keys = open_keys(settings).audit
    journal = Journal(
        Places(broker.home).audit, keys.signer, trusted_keys(keys), rotation=Rotation(size=2000)
    )
    journal.open()
    return journal


def write(broker: Commands, *records: AuditRecord) -> None:
    journal = journal_of(broker)
    journal.add(records)
    journal.commit()
    journal.close()


@pytest.fixture
def filled(broker: Commands) -> Commands:
    """An hour of work: one request that went well, one that was refused, one of another agent."""
    now = time.time()
    write(
        broker,
        record(operation="1", time=now - 3600, phase="intent", status=None, latency_ms=None),
        record(operation="1", time=now - 3599),
        record(
            operation="2",
            time=now - 1800,
            method="POST",
            path="/v1/refunds",
            decision="deny",
            status=403,
            detail="no rule allows it",
        ),
        record(operation="3", time=now - 60, agent="other", service="github", path="/user"),
    )
    return broker


def shown(broker: Commands, *arguments: str) -> list[list[str]]:
    """The lines, each in its parts, without the time."""
    lines = broker.ok("logs", *arguments).out.splitlines()
    return [line.split(" | ")[1:] for line in lines if " | stripe | " in line or "github" in line]


GOOD = ["agent:release-bot", "stripe", "GET /v1/charges", "200", "142ms"]
REFUSED = ["agent:release-bot", "stripe", "POST /v1/refunds", "BLOCKED", "no rule allows it"]
OTHER = ["agent:other", "github", "GET /user", "200", "142ms"]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ((), [GOOD, REFUSED, OTHER]),
        (("--limit", "0"), [GOOD, REFUSED, OTHER]),
        (("--limit", "1"), [OTHER]),
        (("--agent", "release-bot"), [GOOD, REFUSED]),
        (("--agent", "agent:other"), [OTHER]),
        (("--service", "github"), [OTHER]),
        (("--decision", "deny"), [REFUSED]),
        (("--since", "35m"), [REFUSED, OTHER]),
        (("--until", "35m"), [GOOD]),
        (("--since", "35m", "--until", "10m"), [REFUSED]),
        (("--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02"), []),
        (("--since", "2020-01-01T00:00:00+02:00", "--limit", "1"), [OTHER]),
    ],
)
def test_what_is_shown(
    filled: Commands, arguments: tuple[str, ...], lines: list[list[str]]
) -> None:
    assert shown(filled, *arguments) == lines


def test_for_programs_one_record_a_line_as_stored(filled: Commands) -> None:
    lines = filled.ok("logs", "--json", "--limit", "0").out.splitlines()
    stored = (Places(filled.home).audit / "main-000000000001.jsonl").read_text().splitlines()
    assert [line for line in lines if '"main"' in line] == stored
    denied = filled.ok("logs", "--json", "--decision", "deny").out.splitlines()
    assert [json.loads(line)["operation"] for line in denied] == ["2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--decision", "denied"), "did you mean 'deny'"),
        (("--since", "yesterday"), "expected a time such as"),
        (("--until", "2026-13-01"), "expected a time such as"),
        (("--since", "0m"), "expected a time such as"),
    ],
)
def test_what_is_not_understood_is_refused(
    broker: Commands, arguments: tuple[str, ...], said: str
) -> None:
    assert said in broker.refused("logs", *arguments)


def test_without_a_home_it_says_what_to_do(bare: Commands) -> None:
    assert "broker init" in bare.refused("logs")


def test_nothing_that_was_stored_steers_the_terminal(broker: Commands) -> None:
    journal = journal_of(broker)
    own: dict[str, Any] = {"action": "x", "detail": "\x1b[2J\r\nforged | line"}
    journal._add_own(time.time(), own)
    journal.close()
    out = broker.ok("logs").out
    assert "\x1b" not in out
    assert "x | OK | \\x1b[2J\\r\\nforged | line" in out


@pytest.mark.timeout(60)
def test_following_goes_on_across_segments(filled: Commands) -> None:
    command = [sys.executable, "-c", "from broker.cli.main import main; main()"]
    with subprocess.Popen(
        [*command, "logs", "-f", "--service", "stripe"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as following:
        assert following.stdout is not None
        try:
            assert "GET /v1/charges" in following.stdout.readline()
            assert "BLOCKED" in following.stdout.readline()
            journal = journal_of(filled)
            for number in range(8):
                journal.add([record(path=f"/v1/charges/{number}")])
                journal.commit()
                journal.tend()
                assert f"/v1/charges/{number} " in following.stdout.readline()
            journal.close()
            segments = list(Places(filled.home).audit.glob("main-*.jsonl"))
            assert len(segments) > 2
        finally:
            following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0
