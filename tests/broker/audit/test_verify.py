"""Every way in which a trail can be tampered with, and which record is named for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, Chain, Position, digest
from broker.audit.head import Anchor, Head, head_path, read_head, write_head
from broker.audit.journal import Rotation
from broker.audit.segment import list_segments, segment_path
from broker.audit.statement import sign_statement
from tests.broker.audit.trails import (
    check,
    lines,
    open_journal,
    record,
    records,
    signing_key,
    trusted,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    from broker.audit.verify import Finding

PER_SEGMENT: Final = 4


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the broker over several segments, and commands before, between and after."""
    directory = tmp_path_factory.mktemp("trail") / "audit"
    size = PER_SEGMENT * 450
    for _ in range(2):
        write(directory, 2, writer="cli")
        write(directory, 9, rotation=Rotation(size=size))
    write(directory, 1, writer="cli")
    assert check(directory).whole
    assert len(list_segments(directory, "main")) >= 4
    return directory


@pytest.fixture
def trail(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "audit")


def finding(directory: Path, *anchors: Anchor) -> Finding:
    report = check(directory, anchors)
    assert not report.whole
    return report.findings[0]


def place(directory: Path, seq: int) -> tuple[Path, int]:
    """The file and the line of a record of the main writer."""
    segment = [item for item in list_segments(directory, "main") if item.first <= seq][-1]
    return segment.path, seq - segment.first + 1


def rewrite(path: Path, content: list[bytes]) -> None:
    path.write_bytes(b"".join(content))


def change(directory: Path, seq: int, old: bytes, new: bytes) -> None:
    path, line = place(directory, seq)
    content = path.read_bytes().splitlines(keepends=True)
    assert old in content[line - 1]
    content[line - 1] = content[line - 1].replace(old, new, 1)
    rewrite(path, content)


def last(directory: Path) -> int:
    return len(lines(directory, "main"))


def test_a_whole_trail(trail: Path) -> None:
    report = check(trail)
    assert report.whole
    assert report.findings == ()
    cli, main = report.writers
    assert (cli.writer, cli.records, cli.closed) == ("cli", 8, True)
    assert (main.writer, main.records, main.signed) == ("main", last(trail), last(trail))
    assert main.last == Anchor("main", last(trail), digest(lines(trail, "main")[-1]))
    assert main.notes == []


@pytest.mark.parametrize("nth", range(18))
def test_an_edited_record_is_named(trail: Path, nth: int) -> None:
    number = [item["seq"] for item in records(trail, "main") if "agent" in item][nth]
    path, line = place(trail, number)
    change(trail, number, b"release-bot", b"harmless-ai")
    found = finding(trail)
    assert (found.file, found.line, found.seq) == (path.name, line, number)
    assert str(found).startswith(f"{path.name}:{line}: record {number}: ")


def test_an_edited_last_record_is_named(trail: Path) -> None:
    seq = last(trail)
    change(trail, seq, b'"action"', b'"Action"')
    assert finding(trail).seq == seq
    assert "not the record that the writer's head names" in finding(trail).problem


def test_an_edited_link_is_named_where_it_is(trail: Path) -> None:
    change(trail, 3, b'"prev":"', b'"prev":"0')
    assert finding(trail).seq == 3


def test_of_several_edited_records_the_first_is_named(trail: Path) -> None:
    for seq in (1, 2, 3):
        change(trail, seq, b"release-bot", b"harmless-ai")
    assert finding(trail).seq == 1


def test_a_changed_beginning_is_named(trail: Path) -> None:
    change(trail, 1, GENESIS.encode(), b"ab" * 32)
    assert finding(trail).seq == 1


@pytest.mark.parametrize("new", [b"{", b"\xff", b'"v":2,"was"', b"\0"])
def test_a_broken_line_is_named(trail: Path, new: bytes) -> None:
    change(trail, 3, b'"v":1', new)
    assert finding(trail).seq == 3


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_a_removed_record_is_missed(trail: Path, seq: int) -> None:
    path, line = place(trail, seq)
    content = path.read_bytes().splitlines(keepends=True)
    del content[line - 1]
    rewrite(path, content)
    found = finding(trail)
    assert (found.line, found.seq) == (line, seq)
    assert f"is {seq + 1}, and not {seq}" in found.problem


def test_a_repeated_record_is_named(trail: Path) -> None:
    path, line = place(trail, 2)
    content = path.read_bytes().splitlines(keepends=True)
    content.insert(line, content[line - 1])
    rewrite(path, content)
    assert (finding(trail).line, finding(trail).seq) == (3, 3)


def test_exchanged_records_are_named(trail: Path) -> None:
    path, _ = place(trail, 1)
    content = path.read_bytes().splitlines(keepends=True)
    content[1], content[2] = content[2], content[1]
    rewrite(path, content)
    assert (finding(trail).line, finding(trail).seq) == (2, 2)


def test_an_inserted_record_is_named(trail: Path) -> None:
    path, _ = place(trail, 1)
    content = path.read_bytes().splitlines(keepends=True)
    content.insert(2, Chain("main", Position(2, digest(content[1]))).add(record()))
    rewrite(path, content)
    assert (finding(trail).line, finding(trail).seq) == (4, 4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_cut_tail_is_noticed(trail: Path, count: int) -> None:
    path = list_segments(trail, "main")[-1].path
    rewrite(path, path.read_bytes().splitlines(keepends=True)[:-count])
    assert f"the tail was cut: the chain ends with record {last(trail)}" in finding(trail).problem


def test_a_tail_cut_within_a_line_is_noticed(trail: Path) -> None:
    path = list_segments(trail, "main")[-1].path
    path.write_bytes(path.read_bytes()[:-1])
    assert "incomplete" in finding(trail).problem


def test_a_tail_cut_together_with_its_head_is_missed_by_other_writers(trail: Path) -> None:
    """The command that ran after the broker has seen how far its chain had come."""
    path = list_segments(trail, "main")[-1].path
    content = path.read_bytes().splitlines(keepends=True)[:-1]
    rewrite(path, content)
    forge_head(trail, key=0)
    found = finding(trail)
    assert "the tail was cut: the checkpoint in record 8 of writer cli names" in found.problem


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_removed_segment_is_missed(trail: Path, which: int) -> None:
    gone = list_segments(trail, "main")[which]
    gone.path.unlink()
    problem = finding(trail).problem
    assert "the tail was cut" in problem if which == -1 else f"{gone.first} to" in problem


def test_a_removed_writer_is_missed(trail: Path) -> None:
    for path in [*trail.glob("cli-*"), head_path(trail, "cli")]:
        path.unlink()
    found = finding(trail)
    assert found.file == "cli.head"
    assert "the chain of writer cli is gone" in found.problem


def test_a_removed_head_is_missed(trail: Path) -> None:
    head_path(trail, "main").unlink()
    assert "head is missing" in finding(trail).problem


def test_removed_segments_leave_a_head_that_misses_them(trail: Path) -> None:
    for segment in list_segments(trail, "main"):
        segment.path.unlink()
    assert "the tail was cut: the chain ends with record 0" in finding(trail).problem


def test_a_removed_trail_is_missed(tmp_path: Path) -> None:
    assert "no such directory" in finding(tmp_path / "nowhere").problem
    assert "no audit trail here" in finding(tmp_path).problem


def test_exchanged_segments_are_named(trail: Path) -> None:
    first, second = list_segments(trail, "main")[:2]
    content = first.path.read_bytes()
    first.path.write_bytes(second.path.read_bytes())
    second.path.write_bytes(content)
    found = finding(trail)
    assert (found.file, found.line, found.seq) == (first.path.name, 1, 1)


def test_a_segment_of_another_writer_is_named(trail: Path) -> None:
    first = list_segments(trail, "main")[0].path
    first.write_bytes(list_segments(trail, "cli")[0].path.read_bytes())
    assert "belongs to another writer, 'cli'" in finding(trail).problem


def test_a_renamed_segment_is_named(trail: Path) -> None:
    second = list_segments(trail, "main")[1]
    second.path.rename(segment_path(trail, "main", second.first + 1))
    assert f"{second.first} to {second.first}, are missing" in finding(trail).problem


def test_a_repeated_segment_is_named(trail: Path) -> None:
    shutil.copy(list_segments(trail, "main")[0].path, segment_path(trail, "main", 2))
    assert "it repeats records" in finding(trail).problem


def test_a_segment_that_is_a_link_is_named(trail: Path) -> None:
    first = list_segments(trail, "main")[0].path
    first.rename(trail / "elsewhere")
    first.symlink_to(trail / "elsewhere")
    assert finding(trail).file == first.name
    assert "cannot be read" in finding(trail).problem


def test_a_record_added_to_a_closed_chain_is_noticed(trail: Path) -> None:
    seq = last(trail)
    chain = Chain("main", Position(seq, digest(lines(trail, "main")[-1])))
    path = list_segments(trail, "main")[-1].path
    path.write_bytes(path.read_bytes() + chain.add(record()))
    assert "added when the writer had closed" in finding(trail).problem


def forge_chain(directory: Path, first: int, *, key: int | None) -> None:
    """Change a record and link all that follow anew; sign again with a key, if there is one."""
    position = Position(0, GENESIS)
    for segment in list_segments(directory, "main"):
        content = []
        for line in segment.path.read_bytes().splitlines(keepends=True):
            item = orjson.loads(line)
            item["prev"] = position.hash
            if item["seq"] == first:
                item["agent"] = "harmless-ai"
            if item["action"] == "audit.checkpoint" and key is not None:
                statement = {
                    "writer": "main",
                    "seq": position.seq,
                    "hash": position.hash,
                    "time": item["time"],
                    "heads": item["heads"],
                }
                item["signature"] = sign_statement(signing_key(key), "checkpoint", statement)
            content.append(orjson.dumps(item) + b"\n")
            position = Position(item["seq"], digest(content[-1]))
        rewrite(segment.path, content)


def forge_head(directory: Path, *, key: int) -> None:
    head = read_head(directory, "main", trusted())
    assert isinstance(head, Head)
    content = lines(directory, "main")
    path = list_segments(directory, "main")[-1].path
    forged = Head(
        "main", len(content), digest(content[-1]), head.time, path.name, path.stat().st_size,
        closed=True,
    )  # fmt: skip
    write_head(directory, forged, signing_key(key))


def first_checkpoint(directory: Path, after: int) -> int:
    checkpoints = (r for r in records(directory, "main") if r["action"] == "audit.checkpoint")
    return next(int(item["seq"]) for item in checkpoints if item["seq"] > after)


@pytest.mark.parametrize("seq", [1, 3, 7])
def test_a_chain_that_was_linked_anew_lacks_signatures(trail: Path, seq: int) -> None:
    checkpoint = first_checkpoint(trail, seq)
    forge_chain(trail, seq, key=None)
    found = finding(trail)
    assert found.seq == checkpoint
    assert "does not vouch for the records after" in found.problem


def test_a_chain_that_was_signed_with_another_key_is_not_believed(trail: Path) -> None:
    checkpoint = first_checkpoint(trail, 1)
    forge_chain(trail, 1, key=1)
    forge_head(trail, key=1)
    found = finding(trail)
    assert found.seq == checkpoint
    assert "none of the trusted keys" in found.problem


def test_a_tail_that_was_linked_anew_is_not_what_the_head_names(tmp_path: Path) -> None:
    """Records behind the last checkpoint: no signature within the chain covers them yet."""
    directory = tmp_path / "audit"
    journal = open_journal(directory)
    journal.add([record() for _ in range(5)])
    journal.commit()
    journal._write_head()
    journal.abandon()
    forge_chain(directory, 3, key=None)
    found = finding(directory)
    assert found.seq == 5
    assert "not the record that the writer's head names" in found.problem


def test_an_older_state_is_noticed_by_an_anchor_alone(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    write(directory, 3)
    shutil.copytree(directory, tmp_path / "older")
    write(directory, 3)
    final = check(directory).writers[0].last
    assert final is not None
    shutil.rmtree(directory)
    (tmp_path / "older").rename(directory)
    assert check(directory).whole, "the files alone cannot show it"
    found = finding(directory, final)
    assert f"though the anchor names record {final.seq}" in found.problem


def test_anchors_must_be_in_the_chain(trail: Path) -> None:
    middle = Anchor("main", 5, digest(lines(trail, "main")[4]))
    assert check(
        trail, [middle, Anchor("main", last(trail), digest(lines(trail, "main")[-1]))]
    ).whole
    assert finding(trail, middle._replace(hash="ab" * 32)).seq == 5
    assert "though the anchor names record 999" in finding(trail, middle._replace(seq=999)).problem
    assert "ends with record 0" in finding(trail, middle._replace(writer="gone")).problem


def test_archived_segments_need_an_anchor(trail: Path) -> None:
    first, second = list_segments(trail, "main")[:2]
    end = Anchor("main", second.first - 1, digest(first.path.read_bytes().splitlines(True)[-1]))
    first.path.unlink()
    assert f"1 to {end.seq}, are missing" in finding(trail).problem
    assert "are missing" in finding(trail, end._replace(hash="ab" * 32)).problem
    report = check(trail, [end])
    assert report.whole
    assert report.writers[1].notes == [f"records 1 to {end.seq} are not here, but anchored"]


def test_an_unsigned_tail_of_a_running_broker_is_no_finding(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "audit")
    journal.add([record(), record()])
    journal.commit()
    report = check(tmp_path / "audit")
    journal.abandon()
    assert report.whole
    assert report.writers[0].notes == ["2 records are not signed yet"]
    assert report.writers[0].signed == 0


def test_a_record_that_is_being_written_is_no_finding(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "audit")
    journal.add([record(), record()])
    journal.commit()
    journal.abandon()
    path = segment_path(tmp_path / "audit", "main", 1)
    path.write_bytes(path.read_bytes()[:-20])
    report = check(tmp_path / "audit")
    assert report.whole
    assert report.writers[0].records == 1
    assert "bytes of an incomplete record at the end" in report.writers[0].notes[0]


def test_a_record_that_another_writer_has_seen_otherwise_is_named(trail: Path) -> None:
    """Both a chain and its head were made anew, with the very key; another writer remembers."""
    forge_chain(trail, last(trail), key=0)
    forge_head(trail, key=0)
    assert "it is not the record that the checkpoint in record" in finding(trail).problem
    assert "of writer cli names" in finding(trail).problem


def test_without_the_right_key_nothing_is_believed(trail: Path) -> None:
    assert not check(trail, (), 1).whole
    assert check(trail, (), 1, 0).whole


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.suffix in {".jsonl", ".head"}
    }


@st.composite
def mutations(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files after one change to one of them, or to the places of two."""
    files = dict(files)
    name = draw(st.sampled_from(sorted(files)))
    data = files[name]
    content = data.splitlines(keepends=True)
    line = draw(st.integers(0, len(content) - 1))
    position = draw(st.integers(0, len(data) - 1))
    match draw(
        st.sampled_from(["edit", "cut", "drop", "repeat", "swap", "insert", "move", "lose"])
    ):
        case "edit":
            byte = draw(st.integers(0, 255))
            files[name] = data[:position] + bytes([byte]) + data[position + 1 :]
        case "cut":
            files[name] = data[:position]
        case "drop":
            files[name] = b"".join(content[:line] + content[line + 1 :])
        case "repeat":
            files[name] = b"".join([*content[: line + 1], *content[line:]])
        case "swap":
            other = draw(st.integers(0, len(content) - 1))
            content[line], content[other] = content[other], content[line]
            files[name] = b"".join(content)
        case "insert":
            added = draw(st.binary(min_size=1, max_size=5))
            files[name] = data[:position] + added + data[position:]
        case "move":
            other_name = draw(st.sampled_from(sorted(files)))
            files[name], files[other_name] = files[other_name], files[name]
        case "lose":
            del files[name]
    return files


def same(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Whether two trails say the same: a head may be spelt differently and mean no other."""
    return one.keys() == other.keys() and all(
        one[name] == other[name] or (name.endswith(".head") and _equal(one[name], other[name]))
        for name in one
    )


def _equal(one: bytes, other: bytes) -> bool:
    try:
        return bool(orjson.loads(one) == orjson.loads(other))
    except orjson.JSONDecodeError:
        return False


@given(data=st.data())
def test_no_single_change_goes_unnoticed(
    original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    files = snapshot(original)
    changed = data.draw(mutations(files))
    assume(not same(files, changed))
    directory = tmp_path_factory.mktemp("changed")
    for name, content in changed.items():
        (directory / name).write_bytes(content)
    report = check(directory)
    shutil.rmtree(directory)
    assert not report.whole
    assert all(found.problem for found in report.findings)
