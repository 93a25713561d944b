"""The ways in which a service may write a secret that it echoes.

As it is, in base64 (RFC 4648, both alphabets) wherever it stands in what was encoded, or in
hexadecimal; and any character of that may be escaped for a URL, for JSON or for HTML. A secret that
is not ASCII may have been taken for UTF-8 or for Latin-1, and be written in the other.
"""

from __future__ import annotations

import base64
import re
import struct
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ESCAPE_MARKS: Final = b"%\\&"
ESCAPE: Final = re.compile(
    rb"[%\\&](?=((?<=%)[0-9A-Fa-f]{2}"
    rb"|(?<=\\)(?:u00[0-9A-Fa-f]{2}|[\"\\/])"
    rb"|(?<=&)(?:#[0-9]{1,3};|#[Xx][0-9A-Fa-f]{2};|amp;|apos;|gt;|lt;|quot;)))"
)
"""The mark that begins an escaped character; the group is the rest of the escape."""

LONGEST_ESCAPE: Final = len("&quot;")

_NAMED: Final = {b"&": b"&amp;", b"'": b"&apos;", b">": b"&gt;", b"<": b"&lt;", b'"': b"&quot;"}
_RARE_HEADS: Final = (b"\\u00", b"&#", b"%4", b"%5", b"%6", b"%7")
"""Of escapes that stand for letters, mostly, and that hardly anybody writes."""

_ASCII_END: Final = 0x80
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Walk(NamedTuple):
    """Where a spelling ends in some bytes, and whether more bytes could make (more) of it.

    `end` is -1 where it does not stand there in full.
    """

    end: int
    is_open: bool


class Spelling:
    """One way to write a secret: a text, of which any character may be escaped.

    `first` are the bytes that an occurrence may begin with, `alphabet` those
    that it may hold; `longest` is how many it may have.
    """

    __slots__ = ("_characters", "alphabet", "first", "longest", "text")

    def __init__(self, text: bytes) -> None:
        self._characters = tuple(map(_ways, text))
        self.text = text
        self.first = frozenset(way[0] for way in self._characters[0])
        self.alphabet = frozenset(b"".join(b"".join(ways) for ways in self._characters))
        self.longest = sum(len(ways[-1]) for ways in self._characters)

    def __repr__(self) -> str:
        return "Spelling(hidden)"

    def walk(self, data: bytes, start: int) -> Walk:
        """Tell whether the spelling stands at `start`, or begins there and is cut short."""
        size, is_open = len(data), False
        places = {start}
        for ways in self._characters:
            reached = set()
            for place in places:
                for way in ways:
                    if data.startswith(way, place):
                        reached.add(place + len(way))
                    elif place + len(way) > size and way.startswith(data[place:]):
                        is_open = True
            if not reached:
                return Walk(-1, is_open)
            places = reached
        return Walk(max(places), is_open)

    def expression(self, characters: int) -> bytes:
        """Return a regular expression for the first characters."""
        return b"".join(
            b"(?:%b)" % b"|".join(map(re.escape, ways)) for ways in self._characters[:characters]
        )

    def escapes(self) -> Iterator[tuple[bytes, frozenset[int]]]:
        """Yield each escape but the last character's, without its mark, and what may follow it.

        An occurrence without any of them begins with the text, but for the text's last byte.
        """
        following: dict[int, set[int]] = {}
        for byte, after in set(pairwise(self.text)):  # of a long text most come again and again
            following.setdefault(byte, set()).update(_firsts(after))
        for byte, firsts in following.items():
            for way in _ways(byte)[1:]:
                yield way[1:], frozenset(firsts)


@cache
def _firsts(byte: int) -> frozenset[int]:
    """Return what anything that stands for one byte of a text may begin with."""
    return frozenset(way[0] for way in _ways(byte))


def texts(secret: bytes) -> set[bytes]:
    """Return what may be written, and escaped then, for a secret of at least four bytes."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    found.add(secret.replace(b" ", b"+"))  # as forms and query strings have it
    for offset in range(3):
        # Where it meets what stands around the secret, up to six bits of either end are left out.
        whole = base64.b64encode(bytes(offset) + secret + bytes(2))
        inner = whole[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6]
        found |= {inner, inner.translate(_URL_SAFE)}
    return found if secret.isascii() else found.union(_beyond_ascii(secret))


def _beyond_ascii(secret: bytes) -> Iterator[bytes]:
    """Yield how those write it who take it for text, in UTF-8 or with a character in each byte."""
    for coding in ("utf-8", "latin-1"):
        with suppress(UnicodeDecodeError):
            text = secret.decode(coding)
            yield text.encode()
            yield text.encode("latin-1", "xmlcharrefreplace")
            yield text.encode("ascii", "xmlcharrefreplace")
            for form in ("%04x", "%04X"):
                yield b"".join(_unicode_escape(character, form) for character in text)


def _unicode_escape(character: str, form: str) -> bytes:
    """Return a character as JSON has it where only ASCII may stand (RFC 8259, 7)."""
    if character.isascii():
        return character.encode()
    units = character.encode("utf-16-be")
    return b"".join(
        b"\\u%b" % (form % unit[0]).encode() for unit in struct.iter_unpack(">H", units)
    )


def escape_heads(found: Iterable[bytes]) -> set[bytes]:
    """Return beginnings of escapes, few and short: each escape in these texts has one of them."""
    return set().union(*map(_heads, set(b"".join(found))))


@cache
def _heads(byte: int) -> frozenset[bytes]:
    return frozenset(
        next((head for head in _RARE_HEADS if way.startswith(head)), way) for way in _ways(byte)[1:]
    )


@cache
def _ways(byte: int) -> tuple[bytes, ...]:
    """Return what may stand for one byte of a text: itself, then its escapes, the longest last.

    Beyond ASCII there is none but %XX: other escapes are of characters (see `texts`).
    """
    raw = bytes([byte])
    ways = {b"%%%02x" % byte, b"%%%02X" % byte}
    if byte < _ASCII_END:
        ways |= {b"\\u%04x" % byte, b"\\u%04X" % byte, b"&#%d;" % byte, b"&#%03d;" % byte}
        ways |= {b"&#x%02x;" % byte, b"&#x%02X;" % byte, b"&#X%02x;" % byte, b"&#X%02X;" % byte}
    if raw in _NAMED:
        ways.add(_NAMED[raw])
    if raw in b'"\\/':
        ways.add(b"\\" + raw)
    return (raw, *sorted(ways, key=lambda way: (len(way), way)))
