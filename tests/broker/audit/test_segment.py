from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from broker.audit.segment import (
    MAX_LINE,
    Segment,
    list_segments,
    open_for_reading,
    read_lines,
    require_writer_name,
    segment_path,
)
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    segment = Segment(segment_path(tmp_path, "main", 1), born=0.0)
    segment.append(b"one\n")
    segment.commit()
    yield segment
    segment.close()


def test_names_tell_writer_and_order(tmp_path: Path) -> None:
    for name in (
        "main-000000000100.jsonl", "main-000000000020.jsonl", "cli-000000000001.jsonl",
        "main.head", "main.lock", ".main.head.0123", "main-1.jsonl", "Main-000000000001.jsonl",
        "main-000000000001.jsonl.gz",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert [(s.writer, s.first) for s in list_segments(tmp_path)] == [
        ("cli", 1),
        ("main", 20),
        ("main", 100),
    ]
    assert [s.first for s in list_segments(tmp_path, "main")] == [20, 100]


@pytest.mark.parametrize("name", ["main", "cli", "worker.1", "a", "a_b2", "m" * 32])
def test_writer_names(name: str) -> None:
    require_writer_name(name)


@pytest.mark.parametrize("name", ["", "Main", "1a", "a-b", "a/b", "..", "a b", "m" * 33, "a\n"])
def test_what_is_no_writer_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="lower-case"):
        require_writer_name(name)


def test_what_is_appended_is_there_once_committed(segment: Segment) -> None:
    segment.append(b"two\nthr")
    assert segment.durable == 4
    segment.commit()
    assert segment.durable == 11
    assert list(read_lines(segment.path)) == [b"one\n", b"two\n", b"thr"]
    assert list(read_lines(segment.path, 4)) == [b"two\n", b"thr"]
    assert segment.path.stat().st_mode & 0o777 == 0o600


def test_a_segment_is_cut_back_to_what_is_durable(segment: Segment) -> None:
    segment.append(b"half a rec")
    again = segment.reopened()
    assert segment.path.read_bytes() == b"one\n"
    again.append(b"two\n")
    again.commit()
    assert segment.path.read_bytes() == b"one\ntwo\n"
    again.close()
    again.close()


def test_another_file_is_not_taken_for_ours(segment: Segment) -> None:
    segment.path.unlink()
    with pytest.raises(OSError, match="another file"):
        segment.reopened()
    assert segment.path.read_bytes() == b"", "and nothing is made up to fill it"


def test_a_file_that_shrinks_or_grows_elsewhere_is_noticed(segment: Segment) -> None:
    assert segment.interference() is None
    with segment.path.open("ab") as file:
        file.write(b"forged\n")
    assert segment.interference() == "7 bytes were added to it"
    segment.append(b"two\n")
    with pytest.raises(OSError, match="changed by someone else"):
        segment.commit()
    os.truncate(segment.path, 2)
    assert segment.interference() == "it was cut to 2 of 4 bytes"


def test_a_file_that_is_replaced_or_removed_is_noticed(segment: Segment) -> None:
    other = segment.path.with_name("other")
    other.write_bytes(segment.path.read_bytes())
    other.replace(segment.path)
    assert segment.interference() == "another file was put in its place"
    segment.path.unlink()
    assert segment.interference() == "it was removed"
    segment.append(b"two\n")
    with pytest.raises(OSError, match="changed by someone else"):
        segment.commit()


def test_our_own_unfinished_write_is_no_interference(segment: Segment) -> None:
    segment.append(b"half a rec")
    assert segment.interference() is None


def test_no_segment_is_read_or_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch(0o600)
    path = segment_path(tmp_path, "main", 1)
    path.symlink_to(target)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        Segment(path, born=0.0)
    with pytest.raises(OSError, match="symbolic links"):
        open_for_reading(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = segment_path(tmp_path, "main", 1)
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        list(read_lines(path))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = segment_path(tmp_path, "main", 1)
    with path.open("wb") as file:
        file.truncate(3 * MAX_LINE + 5)
    assert [len(line) for line in read_lines(path)] == [MAX_LINE] * 3 + [5]
