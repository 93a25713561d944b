"""A writer's head: a signed note of how far its chain has durably come.

A chain shows what was changed within it, and not that its end was cut off; the head does. It is
written after the records that it names are durable, so it may lag and never leads. Whoever can
replace every file at once can still bring back an older, consistent state: only an anchor that
is kept elsewhere shows that (`broker audit head`, `broker audit verify --anchor`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from broker.audit.segment import open_for_reading
from broker.audit.statement import TrustedKeys, sign_statement
from broker.files import replace_private

if TYPE_CHECKING:
    from pathlib import Path

    from broker.audit.statement import Signs

_SUFFIX: Final = ".head"
_MAX_BYTES: Final = 1 << 16


class Anchor(NamedTuple):
    """A record that a chain must hold: whose, which, and its line's digest in hex."""

    writer: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The last durable record of a writer, and where its line ends.

    `segment` is a file name, `offset` in bytes; `closed` says that the writer ended in good
    order, so that nothing may follow.
    """

    writer: str
    seq: int
    hash: str
    time: str
    segment: str
    offset: int
    closed: bool

    @property
    def anchor(self) -> Anchor:
        """The record that the head names."""
        return Anchor(self.writer, self.seq, self.hash)


class BadHead(NamedTuple):
    """A head that cannot be believed, and why."""

    problem: str


def head_path(directory: Path, writer: str) -> Path:
    """Return where a writer's head is kept."""
    return directory / f"{writer}{_SUFFIX}"


def writers_with_head(directory: Path) -> list[str]:
    """Return the writers whose head is there, sorted."""
    return sorted(path.stem for path in directory.glob(f"[a-z]*{_SUFFIX}"))


def signed_head(head: Head, signer: Signs) -> dict[str, Any]:
    """Return the head with its signature, as it is stored and exported."""
    statement = asdict(head)
    return {**statement, "signature": sign_statement(signer, "head", statement)}


def write_head(directory: Path, head: Head, signer: Signs) -> None:
    """Put the head in the place of the writer's former one, durably."""
    replace_private(
        head_path(directory, head.writer), orjson.dumps(signed_head(head, signer)) + b"\n"
    )


def read_head(directory: Path, writer: str, trusted: TrustedKeys) -> Head | BadHead | None:
    """Return a writer's head, what is wrong with it, or None if there is none."""
    path = head_path(directory, writer)
    try:
        with open_for_reading(path) as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        return BadHead(f"it cannot be read: {error.strerror}")
    head = parse_head(data, trusted)
    if isinstance(head, Head) and head.writer != writer:
        return BadHead(f"it is the head of writer {head.writer}")
    return head


def parse_head(data: bytes, trusted: TrustedKeys) -> Head | BadHead:
    """Return the head that exported bytes hold, or what is wrong with them."""
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return BadHead("it is not JSON")
    if not isinstance(fields, dict):
        return BadHead("it is not a JSON object")
    signature = fields.pop("signature", None)
    if problem := trusted.problem("head", fields, signature):
        return BadHead(problem)
    try:
        return Head(**fields)
    except TypeError:
        return BadHead("it lacks members, or has more than it should")
