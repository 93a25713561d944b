from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.keys.sealing import load_master_key
from broker.secrets.base import MAX_SECRET_BYTES
from broker.secrets.embedded import EmbeddedStore

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands

CANARY = "canary-9d21-value"


def value(broker: Commands, name: str, version: int | None = None) -> bytes:
    store = EmbeddedStore(broker.home / "data/secrets.db", load_master_key("file", broker.home))
    read = store.read(name, version).secret.reveal()
    store.close()
    return read


def trail(broker: Commands) -> list[tuple[str, str, str]]:
    records = broker.ok("logs", "--json").out.splitlines()
    found = [json.loads(record) for record in records]
    return [
        (each["action"], each["phase"], each["detail"])
        for each in found
        if each["action"].startswith("secret.")
    ]


def test_put(broker: Commands) -> None:
    ran = broker.ok("secret", "put", "stripe", stdin=f"{CANARY}\n")
    assert value(broker, "stripe") == CANARY.encode()
    assert '"embedded:stripe"' in ran.out
    assert CANARY not in ran.out + ran.err
    assert trail(broker) == [
        ("secret.put", "intent", "embedded:stripe"),
        ("secret.put", "outcome", "embedded:stripe"),
    ]


def test_put_again_keeps_the_old_version(broker: Commands) -> None:
    broker.ok("secret", "put", "stripe", stdin="one")
    ran = broker.ok("secret", "put", "stripe", "--json", stdin="two")
    assert ran.data == {"name": "stripe", "reference": "embedded:stripe", "version": 2}
    assert (value(broker, "stripe", 1), value(broker, "stripe")) == (b"one", b"two")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("a\n", b"a"), ("a\r\n", b"a"), ("a\n\n", b"a\n"), ("-----BEGIN\nx\n", b"-----BEGIN\nx")],
)
def test_one_line_ending_is_not_part_of_the_value(
    broker: Commands, typed: str, kept: bytes
) -> None:
    broker.ok("secret", "put", "a", stdin=typed)
    assert value(broker, "a") == kept


def test_a_value_with_white_space_around_it_is_kept_and_noted(broker: Commands) -> None:
    assert "begins or ends with white space" in broker.ok("secret", "put", "a", stdin=" x").err
    assert value(broker, "a") == b" x"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [("", "the value is empty"), ("\n", "the value is empty"), ("x" * 99_999, "at most 65536")],
    ids=["empty", "newline", "huge"],
)
def test_a_value_that_is_no_credential_is_refused(
    broker: Commands, typed: str, reason: str
) -> None:
    assert reason in broker.refused("secret", "put", "a", stdin=typed)
    assert broker.ok("secret", "list", "--json").data == []


def test_the_longest_value_may_end_a_line(broker: Commands) -> None:
    broker.ok("secret", "put", "a", stdin="x" * MAX_SECRET_BYTES + "\r\n")
    assert value(broker, "a") == b"x" * MAX_SECRET_BYTES


@pytest.mark.parametrize("verb", ["put", "rotate"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("stripe", CANARY),
        ("stripe", CANARY, "more"),
        (f"stripe={CANARY}",),
        ("sk_live_" + "51HcanaryCANARY0123456789",),
        ("stripe", "--", f"-{CANARY}"),
    ],
    ids=["value", "values", "assignment", "key as name", "dash"],
)
def test_c2_a_value_on_the_command_line_is_refused_and_not_printed(
    broker: Commands, verb: str, arguments: tuple[str, ...]
) -> None:
    told = broker.refused("secret", verb, *arguments, stdin="x")
    assert "never taken from the command line" in told
    assert "it is exposed" in told
    assert "canary" not in told
    assert broker.ok("secret", "list", "--json").data == []
    assert trail(broker) == []


def test_a_value_as_an_option_is_refused_and_not_printed(broker: Commands) -> None:
    for arguments in (("--value", CANARY), (f"--value={CANARY}",)):
        ran = broker.run("secret", "put", "stripe", *arguments, stdin="x")
        assert ran.status == 2
        assert CANARY not in ran.out + ran.err


def test_rotate(broker: Commands) -> None:
    broker.ok("secret", "put", "stripe", stdin="one")
    assert "within 20 s" in broker.ok("secret", "rotate", "stripe", stdin="two").out
    assert value(broker, "stripe") == b"two"
    assert "has this value already" in broker.refused("secret", "rotate", "stripe", stdin="two")
    told = broker.refused("secret", "rotate", "strip", stdin="x")
    assert "did you mean 'stripe'?" in told
    (same, unknown) = [detail for _, _, detail in trail(broker) if "InvalidRequest" in detail]
    assert same.startswith("embedded:stripe: InvalidRequest: 'stripe' has this value already")
    assert unknown.startswith("embedded:strip: InvalidRequest: there is no secret 'strip'")


def test_list(broker: Commands) -> None:
    assert "broker secret put NAME" in broker.ok("secret", "list").out
    broker.ok("secret", "put", "b", stdin="one")
    broker.ok("secret", "put", "b", stdin="two")
    broker.ok("secret", "put", "a/x", stdin="three")
    (first, second) = broker.ok("secret", "list", "--json").data
    assert (first["name"], first["reference"], first["version"]) == ("a/x", "embedded:a/x", 1)
    assert (second["name"], second["version"], second["versions"]) == ("b", 2, [1, 2])
    shown = broker.ok("secret", "list").out
    assert "1, 2" in shown
    assert "two" not in shown


def test_rm(broker: Commands) -> None:
    broker.ok("secret", "put", "stripe", stdin="one")
    assert "say --yes" in broker.refused("secret", "rm", "stripe")
    assert broker.ok("secret", "rm", "stripe", "--yes", "--json").data == {
        "name": "stripe",
        "removed_versions": 1,
    }
    assert "there is no secret 'stripe'" in broker.refused("secret", "rm", "stripe", "--yes")
    assert [action for action, phase, _ in trail(broker) if phase == "outcome"] == [
        "secret.put",
        "secret.remove",
    ]


def test_nothing_changes_if_it_cannot_be_recorded(broker: Commands) -> None:
    (broker.home / "data/audit").rmdir()
    (broker.home / "data/audit").symlink_to("elsewhere")
    assert "symbolic link" in broker.refused("secret", "put", "stripe", stdin="one")
    (broker.home / "data/audit").unlink()
    assert broker.ok("secret", "list", "--json").data == []


def test_without_a_home_it_says_what_to_do(bare: Commands) -> None:
    assert "broker init" in bare.refused("secret", "put", "stripe", stdin="one")


def at_a_terminal(broker: Commands, *arguments: str, types: str) -> tuple[int, str]:
    """Run a command at a pseudo-terminal; return its status and all that was to be seen."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.cli", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "BROKER_HOME": str(broker.home)},
        cwd=Path(__file__).parents[3],
    )
    os.close(terminal)
    seen = b""
    with process:
        while not seen.rstrip().endswith(b":"):
            seen += os.read(controller, 1024)
        os.write(controller, types.encode())
        try:
            while chunk := os.read(controller, 1024):
                seen += chunk
        except OSError:
            pass  # the last holder of the terminal has gone
        os.close(controller)
    return process.returncode, seen.decode()


def test_at_a_terminal_the_value_is_asked_for_and_not_echoed(broker: Commands) -> None:
    status, seen = at_a_terminal(broker, "secret", "put", "stripe", types=f"{CANARY}\n")
    assert status == 0, seen
    assert "Value of stripe (not shown):" in seen
    assert CANARY not in seen
    assert value(broker, "stripe") == CANARY.encode()


def test_at_a_terminal_rm_says_who_uses_it_and_asks(broker: Commands) -> None:
    broker.ok("add", "stripe", "--secret-stdin", stdin="k\n")
    status, seen = at_a_terminal(broker, "secret", "rm", "stripe", types="n\n")
    assert status == 1
    assert "It is used by: stripe." in seen
    assert value(broker, "stripe") == b"k"
    status, seen = at_a_terminal(broker, "secret", "rm", "stripe", types="y\n")
    assert status == 0, seen
    assert broker.ok("secret", "list", "--json").data == []
