"""Find a credential that a service echoes, and put something else in its place.

What is put there is as long as what it replaces, so that lengths stay true. A response is
searched as it streams: of its bytes only those wait that may be the beginning of an occurrence.

The search is in two steps, for it is made on every response: bytes of which some are in every
occurrence, the needles, are looked for first, all at once; only around those is anything looked at
closely.
"""

from __future__ import annotations

import re
from functools import cached_property
from hashlib import sha256
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from broker.gateway.spellings import (
    ESCAPE,
    ESCAPE_MARKS,
    LONGEST_ESCAPE,
    Spelling,
    escape_heads,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Ranges = Sequence[tuple[int, int]]

SHORTEST: Final = 8
"""Bytes a secret must have: one that is shorter stands by chance in what it is no part of."""

_MANY: Final = 32
_DENSE: Final = 128
"""Needles, in all or one in so many bytes, beyond which they are no longer looked at one by one.

Somebody may have sown them; in what is packed or random, some stand by chance.
"""

_OPENING: Final = 12
_REACH: Final = _OPENING * LONGEST_ESCAPE
"""Bytes that the first characters of an occurrence may take."""

_FILLERS: Final = b"*~!.,|^$@(){}[]<>?:\xff"
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_STATUS: Final = len(b"HTTP/1.1 200")


class Scrubber:
    """Find some secrets in bytes, however they are spelt (see `spellings`), and replace them.

    Raises ValueError for a secret that is shorter than `SHORTEST`.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        known = sorted(set(secrets))
        if any(len(secret) < SHORTEST for secret in known):
            raise ValueError(f"a secret of less than {SHORTEST} bytes cannot be told from chance")
        self._texts = sorted({text for secret in known for text in texts(secret)})
        needles = [text[:-1] for text in self._texts] + sorted(escape_heads(self._texts))
        # The standard kind of match would find the same places, without vector instructions.
        automaton = BytesAhoCorasick(needles, matchkind=MatchKind.LeftmostFirst)
        self.needles_in: Final = automaton.find_matches_as_indexes
        """Find the needles in some bytes: if there are none, no occurrence ends there."""
        self._filler = next((one for one in _FILLERS if one not in b"".join(known)), _FILLERS[-1])

    def __repr__(self) -> str:
        return "Scrubber(hidden)"

    def scrub(self, data: bytes) -> bytes:
        """Return `data` without the secrets; the same object if there are none in it."""
        found = self.needles_in(data)
        hits = self._ranges(data, found) if found else []
        return self._replace(data, hits, len(data))[0] if hits else data

    def sift(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what may be let through of `data`, scrubbed, and the rest.

        The rest may be the beginning of a secret: it is to be sifted again with what follows.
        """
        hits, cut = self._hits(data), self._first_open(data, 0)
        if not hits and cut == len(data):
            return data, b""
        return self._replace(data, hits, cut)

    def scrub_head(self, head: bytes) -> bytes:
        """Return a response head without the secrets; the same object if there are none in it.

        Lines stay lines, and frame the same.
        """
        if not self._hits(head):
            return head
        first, end, lines = head.partition(b"\r\n")
        first = first[:_STATUS] + self.scrub(first[_STATUS:])
        scrubbed = first + end + self.scrub_fields(lines)
        return head if scrubbed == head else scrubbed

    def scrub_fields(self, lines: bytes) -> bytes:
        """Return lines of header fields without the secrets; lines stay lines."""
        return b"\r\n".join(map(self._scrub_line, lines.split(b"\r\n")))

    def _scrub_line(self, line: bytes) -> bytes:
        name, colon, value = line.partition(b": ")
        if name.lower() in _FRAMING:
            return line
        return self.scrub(name) + colon + self.scrub(value)

    def _replace(self, data: bytes, hits: Ranges, cut: int) -> tuple[bytes, bytes]:
        done, pieces = 0, []
        for start in self._starts(data, hits):
            if start >= cut:
                break
            if start < done:
                continue
            end = max(one.walk(data, start).end for one in self._beginning[data[start]])
            if end > start:
                pieces += [data[done:start], bytes([self._filler]) * (end - start)]
                done = end
                if end > cut:
                    cut = self._first_open(data, end)
        if pieces:
            return b"".join([*pieces, data[done:cut]]), data[cut:]
        return (data, b"") if cut == len(data) else (data[:cut], data[cut:])

    def _hits(self, data: bytes) -> Ranges:
        """Return ranges of places: what ends in `data` of a secret's occurrences begins in one."""
        return self._ranges(data, self.needles_in(data))

    def _ranges(self, data: bytes, found: list[tuple[int, int, int]]) -> Ranges:
        """Return such ranges by the needles found, in order.

        Needles are found where they do not overlap, from the left: each may hide another that
        begins in it.
        """
        if not found:
            return []
        if len(found) > max(_MANY, len(data) // _DENSE):
            return [(0, len(data))]
        hits = []
        for number, start, end in found:
            if number < len(self._texts) or self._is_escape(data, start, end):
                hits.append((max(0, start - self.longest), end))
            else:
                hits.append((start + 1, end))  # a text may begin there
        hits.sort()
        return hits

    def _is_escape(self, data: bytes, start: int, end: int) -> bool:
        """Tell whether an escape begins here, or further on before `end`, that a secret may hold.

        That depends on the escape and on the byte after it.
        """
        for place in range(start, end):
            match = ESCAPE.match(data, place)
            if match is not None:
                after = match.end(1)
                if after < len(data) and data[after] in self._escapes.get(match[1], ()):
                    return True
        return False

    def _starts(self, data: bytes, hits: Ranges) -> Iterator[int]:
        """Yield where an occurrence of a secret may begin, in order."""
        done = 0
        for first, end in hits:
            yield from self._opened(data, max(done, first), end)
            done = max(done, end)

    def _opened(self, data: bytes, first: int, end: int) -> Iterator[int]:
        """Yield where the first characters of a secret stand, from `first` on and before `end`.

        To look for all of it at each place would take as long as somebody who sows marks likes.
        """
        if first < end:
            for match in self._openings.finditer(data, first, end + _REACH):
                if match.start() >= end:
                    return
                yield match.start()

    def _first_open(self, data: bytes, lowest: int) -> int:
        """Return where the first secret begins, from `lowest` on, that the end of data cuts short.

        If there is none: the end of `data`.
        """
        size = len(data)
        if lowest >= size or data[-1] not in self.alphabet:
            return size
        lowest = max(lowest, size - self.longest + 1)
        lowest += len(data[lowest:].rstrip(self.alphabet))
        escaped = any(mark in data[-LONGEST_ESCAPE - 1 :] for mark in ESCAPE_MARKS)
        if not escaped and data[-2:] not in self._pairs:
            lowest = max(lowest, size - 1)
        beginning = self._beginning
        # Of what begins further from the end than that, the first characters are all there.
        near = max(lowest, size - _REACH)
        for start in chain(self._opened(data, lowest, near), range(near, size)):
            if any(one.walk(data, start).is_open for one in beginning.get(data[start], ())):
                return start
        return size

    @cached_property
    def longest(self) -> int:
        """How many bytes an occurrence may have."""
        return max(one.longest for one in self._spellings)

    @cached_property
    def _spellings(self) -> tuple[Spelling, ...]:
        return tuple(map(Spelling, self._texts))

    @cached_property
    def _beginning(self) -> dict[int, list[Spelling]]:
        """The spellings by the bytes that they may begin with."""
        beginning: dict[int, list[Spelling]] = {}
        for one in self._spellings:
            for byte in one.first:
                beginning.setdefault(byte, []).append(one)
        return beginning

    @cached_property
    def _openings(self) -> re.Pattern[bytes]:
        """Find the first characters of each spelling, wherever they stand.

        The rest is compared more slowly, so these go beyond the prefixes that keys have in common.
        """
        openings = (one.expression(_OPENING) for one in self._spellings)
        return re.compile(b"(?=%b)" % b"|".join(openings))

    @cached_property
    def _escapes(self) -> dict[bytes, set[int]]:
        """Each escape that may stand in an occurrence, and the bytes that may follow it there."""
        escapes: dict[bytes, set[int]] = {}
        for one in self._spellings:
            for escape, following in one.escapes():
                escapes.setdefault(escape, set()).update(following)
        return escapes

    @cached_property
    def _pairs(self) -> frozenset[bytes]:
        """Each two bytes that may follow one another in an occurrence without escapes."""
        return frozenset(bytes(pair) for text in self._texts for pair in pairwise(text))

    @cached_property
    def alphabet(self) -> bytes:
        """Each byte that may stand in an occurrence, whole or cut short."""
        return bytes(sorted(set().union(*(one.alphabet for one in self._spellings))))


_scrubbers: Final[WeakValueDictionary[bytes, Scrubber]] = WeakValueDictionary()


def scrubber(secrets: Iterable[bytes]) -> Scrubber:
    """Return a `Scrubber` of these secrets: one that there is already, as long as it is in use."""
    known = sorted(set(secrets))
    key = sha256(b"".join(b"%d:%b" % (len(one), one) for one in known)).digest()
    found = _scrubbers.get(key)
    if found is None:
        found = _scrubbers[key] = Scrubber(known)
    return found
