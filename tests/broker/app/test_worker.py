from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.app.scoreboard import Scoreboard
from broker.app.worker import Worker, writer
from broker.audit.segment import require_writer_name
from broker.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

ORPHAN = """
import os, signal, sys, time
from broker.app.worker import Worker
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Worker(2, None, None, int(sys.argv[1]), 2).end_with_supervisor(0.1)
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "name"), [(1, "main"), (2, "main.2"), (64, "main.64")])
def test_each_writes_a_chain_of_its_own(number: int, name: str) -> None:
    assert writer(number) == name
    require_writer_name(name)


def test_it_says_once_that_it_is_ready(tmp_path: Path) -> None:
    heard, told = os.pipe()
    board = Scoreboard(1)
    worker = Worker(1, Settings(tmp_path), board, heard, told)
    assert (worker.name, worker.writer) == ("worker 1", "main")
    worker.ready()
    assert os.read(heard, 10) == b"\n"
    assert os.read(heard, 10) == b"", "the pipe is closed"
    os.close(heard)
    board.close()


def test_a_supervisor_that_is_gone_is_told_nothing(tmp_path: Path) -> None:
    heard, told = os.pipe()
    os.close(heard)
    board = Scoreboard(1)
    Worker(1, Settings(tmp_path), board, heard, told).ready()
    board.close()


@pytest.mark.parametrize(("kind", "status"), [("polite", -signal.SIGTERM), ("deaf", 1)])
def test_it_ends_with_its_supervisor(kind: str, status: int) -> None:
    lifeline, held = os.pipe()
    command = [sys.executable, "-c", ORPHAN, str(lifeline), kind]
    with subprocess.Popen(command, pass_fds=[lifeline], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None
        os.close(held)
        assert process.wait(timeout=30) == status
    os.close(lifeline)
