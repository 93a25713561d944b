"""Prove that a trail is whole, or say which record is the first that is not.

What is checked: each line is a record and its writer's next one; it states the digest of the
line before it; each signed checkpoint and each head was signed with a trusted key and names the
record that is there; no segment and no writer that a checkpoint knows is missing; every anchor
is in its chain. What cannot be seen from the files alone: that all of them together were put
back to an earlier state. An anchor kept elsewhere shows it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from broker.audit.chain import START, Position, digest
from broker.audit.head import Anchor, BadHead, Head, read_head, writers_with_head
from broker.audit.recovery import link_problem, parse_line
from broker.audit.segment import list_segments, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from broker.audit.segment import SegmentName
    from broker.audit.statement import TrustedKeys

_NOTED: Final = frozenset({"audit.recover", "audit.resume"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where the trail is not what was written; line and record count from 1."""

    file: str
    problem: str
    line: int | None = None
    seq: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        record = "" if self.seq is None else f" record {self.seq}:"
        return f"{place}:{record} {self.problem}"


@dataclass(slots=True)
class WriterReport:
    """One writer's chain, as far as it holds: how many records, and the last of them.

    `signed` is the last record that a signature or an anchor vouches for. `notes` tell of what
    is no sign of interference: a restart after a crash, records refused while the disk was full.
    """

    writer: str
    records: int = 0
    last: Anchor | None = None
    signed: int = 0
    closed: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found; each writer has at most one finding, its first."""

    writers: tuple[WriterReport, ...]
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Say whether nothing was found."""
        return not self.findings


class _Place(NamedTuple):
    """Where a walk is: a file, a line in it, the record that should be there."""

    file: str
    line: int | None = None
    seq: int | None = None


class _Broken(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def verify(directory: Path, trusted: TrustedKeys, anchors: Iterable[Anchor] = ()) -> Report:
    """Check every chain in `directory`, which may be written to meanwhile.

    `anchors` are records that must be there, from a place that an editor of the files cannot
    reach. A chain that begins right after an anchor may lack what came before: it was archived.
    """
    anchors = tuple(anchors)
    if not directory.is_dir():
        return Report((), (Finding(str(directory), "there is no such directory"),))
    # Heads before segments: a record that is written meanwhile is behind its head, not cut.
    heads = {
        writer: read_head(directory, writer, trusted) for writer in writers_with_head(directory)
    }
    segments = list_segments(directory)
    names = {*heads, *(segment.writer for segment in segments), *(a.writer for a in anchors)}
    if not names:
        return Report((), (Finding(str(directory), "there is no audit trail here"),))
    reports: list[WriterReport] = []
    findings: list[Finding] = []
    known: dict[Anchor, str] = {}
    for writer in sorted(names):
        walk = _Walk(
            writer,
            [segment for segment in segments if segment.writer == writer],
            heads.get(writer),
            trusted,
            [anchor for anchor in anchors if anchor.writer == writer],
        )
        if finding := walk.run():
            findings.append(finding)
            names.remove(writer)
        reports.append(walk.report)
        known = walk.named | known
    findings += _check_named(directory, known, names)
    return Report(tuple(reports), tuple(findings))


class _Walk:
    """Follow one writer's chain from its first record to its last."""

    def __init__(
        self,
        writer: str,
        segments: list[SegmentName],
        head: Head | BadHead | None,
        trusted: TrustedKeys,
        anchors: list[Anchor],
    ) -> None:
        self.report = WriterReport(writer)
        self.named: dict[Anchor, str] = {}
        self._writer = writer
        self._segments = segments
        self._head = head
        self._trusted = trusted
        self._expected: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for anchor in anchors:
            self._expected[anchor.seq].append((anchor.hash, "the anchor"))
        if isinstance(head, Head):
            self._expected[head.seq].append((head.hash, "the writer's head"))
        self._position = START
        self._place = _Place(f"{writer}.head")

    def run(self) -> Finding | None:
        """Walk; return the first finding, or None."""
        try:
            for (segment, number, line), (_, _, following) in pairwise(self._lines()):
                if not self._step(segment, number, line, following):
                    break
            self._finish()
        except _Broken as broken:
            return broken.finding
        except OSError as error:
            file = PurePath(str(error.filename or self._place.file)).name
            return Finding(file, f"it cannot be read: {error.strerror}")
        finally:
            if self._position.seq:
                self.report.last = Anchor(self._writer, *self._position)
        return None

    def _lines(self) -> Iterator[tuple[SegmentName, int, bytes]]:
        """Yield segment, line number and line, and at the end one empty line more."""
        for segment in self._segments:
            for number, line in enumerate(read_lines(segment.path), start=1):
                yield segment, number, line
        if self._segments:
            yield self._segments[-1], 0, b""

    def _step(self, segment: SegmentName, number: int, line: bytes, following: bytes) -> bool:
        """Take one line; return False if it is the incomplete last one."""
        if number == 1:
            self._begin(segment)
        before = self._place
        self._place = _Place(segment.path.name, number, self._position.seq + 1)
        if not line.endswith(b"\n"):
            self._note_incomplete(line, following)
            return False
        record = parse_line(line)
        problem = link_problem(record, self._writer, self._position)
        if record is None or problem:
            if record and record.get("prev") != self._position.hash:
                self._blame(record, line, following, before)
            self._fail(problem or "it is not a record")
        else:
            self._accept(record, line)
        return True

    def _begin(self, segment: SegmentName) -> None:
        self._place = _Place(segment.path.name, 1, segment.first)
        if segment.first == self._position.seq + 1:
            return
        if self._position == START:
            first = parse_line(next(read_lines(segment.path), b"")) or {}
            start = Position(segment.first - 1, str(first.get("prev")))
            if any(start.hash == digest_ for digest_, _ in self._expected.get(start.seq, ())):
                self._position = start
                self.report.notes.append(f"records 1 to {start.seq} are not here, but anchored")
                return
        missing = f"{self._position.seq + 1} to {segment.first - 1}"
        self._fail(
            f"the records before it, {missing}, are missing"
            if segment.first > self._position.seq
            else f"it repeats records: the segment before it ends with {self._position.seq}"
        )

    def _accept(self, record: Mapping[str, Any], line: bytes) -> None:
        action = record.get("action")
        if action == "audit.checkpoint":
            self._check_checkpoint(record)
        elif action == "audit.break":
            self._fail(f"the writer itself found interference: {record.get('detail')}")
        elif action in _NOTED:
            self.report.notes.append(f"record {record['seq']}: {record.get('detail')}")
        self._position = Position(self._position.seq + 1, digest(line))
        self.report.records += 1
        for expected, who in self._expected.pop(self._position.seq, ()):
            if expected != self._position.hash:
                self._fail(f"it is not the record that {who} names")
            self.report.signed = self._position.seq

    def _check_checkpoint(self, record: Mapping[str, Any]) -> None:
        heads = record.get("heads")
        statement = {
            "writer": self._writer,
            "seq": self._position.seq,
            "hash": self._position.hash,
            "time": record.get("time"),
            "heads": heads,
        }
        if problem := self._trusted.problem("checkpoint", statement, record.get("signature")):
            self._fail(
                f"the checkpoint does not vouch for the records after {self.report.signed}: "
                f"{problem}"
            )
        self.report.signed = self._position.seq
        for writer, head in (heads or {}).items():
            source = f"the checkpoint in record {record['seq']} of writer {self._writer}"
            self.named.setdefault(Anchor(writer, head["seq"], head["hash"]), source)

    def _blame(
        self, record: Mapping[str, Any], line: bytes, following: bytes, before: _Place
    ) -> None:
        """Fail at the record before, unless this one's `prev` alone was changed."""
        if record.get("seq") != self._position.seq + 1 or self._position.seq == 0:
            return
        stated = str(record.get("prev")).encode()
        mended = digest(line.replace(stated, self._position.hash.encode()))
        vouched = {expected for expected, _ in self._expected.get(self._position.seq + 1, ())}
        if following:
            vouched.add(str((parse_line(following) or {}).get("prev")))
        if mended not in vouched:
            self._place = before
            self._fail("it was changed: the next record states another digest of it")

    def _note_incomplete(self, line: bytes, following: bytes) -> None:
        closed = isinstance(self._head, Head) and self._head.closed
        if following or closed:
            self._fail("its line is incomplete")
        self.report.notes.append(f"{len(line)} bytes of an incomplete record at the end")

    def _finish(self) -> None:
        last = self._position.seq
        self._place = _Place(self._place.file, None, last or None)
        for seq, expected in sorted(self._expected.items()):
            if seq > last:
                self._fail(
                    f"the tail was cut: the chain ends with record {last}, though "
                    f"{expected[0][1]} names record {seq}"
                )
        head = self._head
        self._place = _Place(f"{self._writer}.head")
        if head is None:
            self._fail("the writer's head is missing, so the end of its chain may be, too")
        elif isinstance(head, BadHead):
            self._fail(f"the writer's head cannot be believed: {head.problem}")
        else:
            self.report.closed = head.closed
            if last > head.seq and head.closed:
                self._fail(f"records after {head.seq} were added when the writer had closed")
            if last > head.seq:
                self.report.notes.append(f"{last - head.seq} records are not signed yet")

    def _fail(self, problem: str) -> NoReturn:
        place = self._place
        raise _Broken(Finding(place.file, problem, place.line, place.seq))


def _check_named(
    directory: Path, named: Mapping[Anchor, str], whole: set[str]
) -> Iterator[Finding]:
    """Look for the records of other writers that signed checkpoints name."""
    by_writer: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for anchor, source in named.items():
        by_writer[anchor.writer].setdefault(anchor.seq, (anchor.hash, source))
    for writer, expected in sorted(by_writer.items()):
        segments = list_segments(directory, writer)
        if not segments:
            _, source = expected[max(expected)]
            yield Finding(
                f"{writer}.head", f"the chain of writer {writer} is gone: {source} names it"
            )
        elif writer in whole:
            yield from _check_chain(segments, expected)


def _check_chain(
    segments: list[SegmentName], expected: dict[int, tuple[str, str]]
) -> Iterator[Finding]:
    seq = 0
    for segment in segments:
        for number, line in enumerate(read_lines(segment.path)):
            seq = segment.first + number
            stated, source = expected.pop(seq, (None, ""))
            if stated is not None and stated != digest(line):
                problem = f"it is not the record that {source} names"
                yield Finding(segment.path.name, problem, number + 1, seq)
                return
    for missing, (_, source) in sorted(expected.items()):
        if missing > seq:
            problem = f"the tail was cut: {source} names record {missing}"
            yield Finding(segments[-1].path.name, problem, None, seq)
            return
