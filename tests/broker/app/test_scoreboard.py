from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.app.scoreboard import SUPERVISOR, Scoreboard

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(2)
    yield board
    board.close()


def test_each_reads_what_each_has_written_last(board: Scoreboard) -> None:
    assert list(board.workers) == [1, 2]
    assert [board.read(seat) for seat in (SUPERVISOR, 1, 2)] == [b"", b"", b""]
    board.write(1, b"x" * 100_000)
    board.write(2, b"")
    board.write(1, b"short")
    assert [board.read(seat) for seat in (1, 2)] == [b"short", b""]


def test_what_another_process_writes_is_there_when_it_has_died(board: Scoreboard) -> None:
    child = os.fork()
    if child == 0:
        board.write(2, b"from a child")
        os._exit(0)
    os.waitpid(child, 0)
    assert board.read(2) == b"from a child"


def test_what_was_half_written_is_not_read(board: Scoreboard) -> None:
    board.write(1, b"whole")
    assert board.read(1) == b"whole"
    os.pwrite(board._seats[1], b"torn", 14)
    assert board.read(1) == b"whole"
    os.ftruncate(board._seats[1], 3)
    assert board.read(1) == b"whole"


def test_no_other_process_can_find_it(board: Scoreboard) -> None:
    assert "(deleted)" in str(Path(f"/proc/self/fd/{board._seats[0]}").readlink())
    assert not os.get_inheritable(board._seats[0])
