from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from broker.audit import once
from broker.audit.once import close_chain, record_once
from broker.errors import AuditUnavailable
from tests.broker.audit.trails import (
    check,
    open_journal,
    record,
    records,
    signing_key,
    trusted,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


def _record(directory: Path, operation: str) -> None:
    record_once(directory, signing_key(), trusted(), record(operation=operation))


def test_a_command_leaves_its_records(directory: Path) -> None:
    record_once(
        directory, signing_key(), trusted(), record(phase="intent"), record(phase="outcome")
    )
    stored = records(directory, "cli")
    assert [item.get("phase") for item in stored] == ["intent", "outcome", None]
    assert check(directory).whole


def test_a_command_records_beside_a_running_broker(directory: Path) -> None:
    broker = open_journal(directory)
    _record(directory, "beside")
    broker.add([record()])
    broker.commit()
    broker.close()
    report = check(directory)
    assert report.whole
    assert [writer.writer for writer in report.writers] == ["cli", "main"]


def test_commands_wait_for_each_other(directory: Path) -> None:
    signing_key()
    context = multiprocessing.get_context("fork")
    commands = [
        context.Process(target=_record, args=(directory, f"command {number}"))
        for number in range(6)
    ]
    for command in commands:
        command.start()
    for command in commands:
        command.join(60)
    assert [command.exitcode for command in commands] == [0] * 6
    operations = {item["operation"] for item in records(directory) if "operation" in item}
    assert operations == {f"command {number}" for number in range(6)}
    assert check(directory).whole


def test_a_command_does_not_wait_for_ever(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "LOCK_SECONDS", 0.05)
    holder = open_journal(directory, writer="cli")
    with pytest.raises(AuditUnavailable, match="another process"):
        _record(directory, "too late")
    holder.close()


def test_without_a_record_nothing_may_be_done(directory: Path) -> None:
    write(directory, 1, writer="cli")
    for path in directory.glob("cli-*"):
        path.unlink()
        path.mkdir()
    with pytest.raises(AuditUnavailable):
        _record(directory, "in vain")


def test_a_chain_that_was_left_open_is_signed_and_closed(directory: Path) -> None:
    journal = open_journal(directory)
    journal.add([record()])
    journal.commit()
    with pytest.raises(AuditUnavailable, match="another process writes"):
        close_chain(directory, signing_key(), trusted(), "main")
    journal.abandon()
    close_chain(directory, signing_key(), trusted(), "main")
    (main,) = check(directory).writers
    assert main.closed
    assert main.signed == main.records
