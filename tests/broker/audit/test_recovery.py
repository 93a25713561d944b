"""Where a chain goes on: after a crash, and after someone had a hand in the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from broker.audit.chain import START, Chain, Position, digest
from broker.audit.head import head_path
from broker.audit.recovery import link_problem, parse_line, resume
from broker.audit.segment import segment_path
from tests.broker.audit.trails import lines, open_journal, record, trusted, write

if TYPE_CHECKING:
    from pathlib import Path


def first_segment(directory: Path) -> Path:
    return segment_path(directory, "main", 1)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A trail of five records whose writer vanished before it wrote a head for them."""
    directory = tmp_path / "audit"
    journal = open_journal(directory)
    journal.add([record() for _ in range(5)])
    journal.commit()
    journal.abandon()
    return directory


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A trail of five records and a checkpoint, closed in good order."""
    write(tmp_path / "audit", 5)
    return tmp_path / "audit"


def test_nothing_is_the_beginning(tmp_path: Path) -> None:
    found = resume(tmp_path, "main", trusted())
    assert found.position == START
    assert found.segment is None
    assert found.broken is None


def test_after_a_good_end_nothing_is_to_be_done(closed: Path) -> None:
    found = resume(closed, "main", trusted())
    assert found.position == Position(6, digest(lines(closed)[-1]))
    assert found.segment == first_segment(closed)
    assert found.size == first_segment(closed).stat().st_size
    assert (found.torn, found.unsigned, found.broken) == (0, 0, None)


def test_records_behind_the_head_are_kept(crashed: Path) -> None:
    found = resume(crashed, "main", trusted())
    assert found.position == Position(5, digest(lines(crashed)[-1]))
    assert (found.torn, found.unsigned, found.broken) == (0, 5, None)


@pytest.mark.parametrize("torn", [b"{", b'{"v":1,"writer":"main","se', b"\0" * 700])
def test_an_incomplete_line_is_dropped(crashed: Path, torn: bytes) -> None:
    size = first_segment(crashed).stat().st_size
    with first_segment(crashed).open("ab") as file:
        file.write(torn)
    found = resume(crashed, "main", trusted())
    assert (found.size, found.torn, found.unsigned) == (size, len(torn), 5)
    assert found.broken is None


def test_an_empty_new_segment_is_where_the_chain_goes_on(crashed: Path) -> None:
    segment_path(crashed, "main", 6).touch(0o600)
    found = resume(crashed, "main", trusted())
    assert found.segment == segment_path(crashed, "main", 6)
    assert (found.size, found.position.seq, found.broken) == (0, 5, None)


def test_records_are_found_in_several_segments(crashed: Path) -> None:
    chain = Chain("main", Position(5, digest(lines(crashed)[-1])))
    segment_path(crashed, "main", 6).write_bytes(chain.add(record()) + b"{torn")
    found = resume(crashed, "main", trusted())
    assert found.position == chain.position
    assert (found.torn, found.unsigned, found.broken) == (5, 6, None)


def test_a_cut_tail_is_no_crash(closed: Path) -> None:
    last = lines(closed)[-1]
    size = first_segment(closed).stat().st_size
    with first_segment(closed).open("rb+") as file:
        file.truncate(size - len(last))
    found = resume(closed, "main", trusted())
    assert "was cut" in str(found.broken)
    assert found.position == Position(6, digest(last)), "the head's word counts"
    assert found.segment is None


def test_a_missing_line_end_is_a_cut_too(closed: Path) -> None:
    """Else whoever takes the last byte away would have us drop a durable record."""
    with first_segment(closed).open("rb+") as file:
        file.truncate(first_segment(closed).stat().st_size - 1)
    assert "was cut" in str(resume(closed, "main", trusted()).broken)


def test_a_segment_that_is_gone_is_no_crash(closed: Path) -> None:
    first_segment(closed).unlink()
    found = resume(closed, "main", trusted())
    assert "main-000000000001.jsonl is missing" in str(found.broken)
    assert found.position.seq == 6


def test_nothing_may_follow_a_closed_chain(closed: Path) -> None:
    chain = Chain("main", Position(6, digest(lines(closed)[-1])))
    with first_segment(closed).open("ab") as file:
        file.write(chain.add(record()))
    found = resume(closed, "main", trusted())
    assert "after the writer had closed" in str(found.broken)
    assert found.position.seq == 7


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (b"not a record\n", "not a record of version 1"),
        (b"{}\n", "not a record of version 1"),
        (Chain("cli", Position(5, "0" * 64)).add(record()), "another writer, 'cli'"),
        (Chain("main", Position(6, "0" * 64)).add(record()), "is 7, and not 6"),
        (Chain("main", Position(5, "0" * 64)).add(record()), "`prev`"),
    ],
)
def test_what_does_not_follow_is_left_alone(crashed: Path, what: bytes, problem: str) -> None:
    with first_segment(crashed).open("ab") as file:
        file.write(what)
    found = resume(crashed, "main", trusted())
    assert problem in str(found.broken)
    assert found.position.seq == 5
    assert found.segment is None


def test_an_incomplete_line_in_the_middle_is_no_crash(crashed: Path) -> None:
    with first_segment(crashed).open("ab") as file:
        file.write(b"{torn")
    segment_path(crashed, "main", 6).touch()
    assert "does not follow" in str(resume(crashed, "main", trusted()).broken)


@pytest.mark.parametrize("data", [None, b"{}"])
def test_without_a_head_the_last_record_is_taken_at_its_word(
    closed: Path, data: bytes | None
) -> None:
    head_path(closed, "main").unlink()
    if data is not None:
        head_path(closed, "main").write_bytes(data)
    segment_path(closed, "main", 7).write_bytes(b"no record\n{torn")
    found = resume(closed, "main", trusted())
    assert "the head is no help" in str(found.broken)
    assert found.position == Position(6, digest(lines(closed)[5]))


def test_without_a_head_and_without_records_the_chain_begins_again(closed: Path) -> None:
    head_path(closed, "main").unlink()
    first_segment(closed).write_bytes(b"")
    found = resume(closed, "main", trusted())
    assert found.position == START
    assert found.broken


def test_links() -> None:
    line = Chain("main").add(record())
    assert link_problem(orjson.loads(line), "main", START) is None
    assert link_problem(orjson.loads(line), "cli", START)
    assert link_problem(orjson.loads(line), "main", Position(1, START.hash))
    assert link_problem(orjson.loads(line), "main", Position(0, "ab" * 32))
    assert link_problem(None, "main", START)


@pytest.mark.parametrize("line", [b"", b"\n", b"5\n", b"[]\n", b"{\n", b"\xff\n"])
def test_what_is_no_object_is_no_record(line: bytes) -> None:
    assert parse_line(line) is None
