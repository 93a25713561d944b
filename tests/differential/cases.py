"""Cases: one connection each, made from a seed alone, so that it can be made again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final

from tests.differential.mutations import BASIC, HOST, MUTATIONS, SLOTS, TOKEN, Draft, draft, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

LAST: Final = 0xFF
"""The number of the request that ends each connection, and shows that it was understood."""


@dataclass(frozen=True)
class Case:
    """One connection: what kind it is, its bytes, and where they are cut into writes."""

    number: int
    kind: str
    data: bytes
    cuts: tuple[float, ...] = ()

    def parts(self, token: bytes, basic: bytes) -> list[bytes]:
        """Return what is written, one piece after the other."""
        data = self.filled(token, basic)
        positions = sorted({0, len(data), *(int(cut * len(data)) for cut in self.cuts)})
        return [data[i:j] for i, j in pairwise(positions)]

    def filled(self, token: bytes, basic: bytes) -> bytes:
        """Return all of it, with the task token."""
        return self.data.replace(TOKEN, token).replace(BASIC, basic)


_NAMES: Final = [*MUTATIONS]
_WEIGHTS: Final = [weight for weight, _ in MUTATIONS.values()]
_SPLICES: Final = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b",", b";", b"/", b"../",
    b"%2e", b"?", b"#",
    b"0\r\n\r\n", b"HTTP/1.1", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: x\r\n",
    b"GET / HTTP/1.1\r\n", b"Connection: X-Nominated\r\n", b"\r\n ", b"\xff", b"chunked",
)  # fmt: skip


def havoc(random: Random, data: bytes) -> bytes:
    """Return the bytes with a few of them flipped, put in, taken out, doubled or exchanged."""
    text = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        at = random.randrange(len(text) + 1)
        span = random.choice([1, 1, 2, 4, 16])
        match random.randint(0, 5):
            case 0 if at < len(text):
                text[at] ^= 1 << random.randint(0, 7)
            case 1:
                text[at:at] = random.choice(_SPLICES)
            case 2:
                del text[at : at + span]
            case 3:
                text[at:at] = bytes(random.randint(0, 255) for _ in range(span))
            case 4:
                text[at:at] = text[max(0, at - 4 * span) : at]
            case _:
                text[at : at + span] = random.choice(_SPLICES)
    return bytes(text)


def make(seed: int, number: int) -> Case:
    """Return the case of this number in the run of this seed."""
    random = Random(f"{seed}/{number}")  # noqa: S311 - a case must be the same each time
    drafts = [
        draft(random, number, index) for index in range(random.choice([1] * 7 + [2, 2, 3, 6]))
    ]
    kind = random.choices(_NAMES, _WEIGHTS)[0]
    MUTATIONS[kind][1](random, random.choice(drafts))
    return Case(number, *_written(random, kind, drafts, number))


def _written(
    random: Random, kind: str, drafts: Sequence[Draft], number: int
) -> tuple[str, bytes, tuple[float, ...]]:
    data = b"".join(one.render() for one in drafts)
    if random.random() < 0.25:
        kind += ", and havoc"
        data = havoc(random, data)
    if random.random() < 0.9:
        last = Draft(tag(number, LAST), b"api", b"GET", b"/v1/TAG")
        last.lines = [HOST, SLOTS[b"api"], b"Connection: close"]
        data += last.render()
    cuts: tuple[float, ...] = ()
    if random.random() < 0.3:
        cuts = tuple(random.random() for _ in range(random.choice([1, 1, 2, 5])))
    return kind, data, cuts
