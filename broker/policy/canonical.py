"""Refuse request paths that two programs could read as two different paths.

Rules are matched on the raw bytes of a path, and the same bytes are sent upstream. That is
only safe if the upstream, its framework and every proxy before it take these bytes for the
same path. So a path passes only in the one spelling that RFC 3986 normalisation (6.2.2),
the WHATWG URL parser, merging of slashes, stripping of `;` parameters, percent-decoding and
Unicode compatibility folding all leave alone; any other spelling is refused, not repaired.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

UNRESERVED: Final = b"A-Za-z0-9\\-._~"
"""Characters that are never percent-encoded (RFC 3986, 2.3), as the inside of a class."""

RAW_RESERVED: Final = b"!$&'()*+,=:@"
"""Reserved characters that may stand raw in a segment (RFC 3986, 3.3), without `;`."""

_RAW: Final = b"[%b%b]" % (UNRESERVED, RAW_RESERVED)
# Everything else in ASCII but / \ ; # ? % and control characters, which some decode too early.
_ENCODED_ASCII: Final = rb"%(?:2[0-246-9A-Ca-c]|3[ACDEacde]|40|5[BDEbde]|60|7[B-Db-d])"
_TAIL: Final = rb"%[89ABab][0-9A-Fa-f]"
# Well-formed UTF-8 (RFC 3629, 4): no overlong form, no surrogate, nothing past U+10FFFF.
_ENCODED_UTF8: Final = (
    rb"(?:%(?:[Cc][2-9A-Fa-f]|[Dd][0-9A-Fa-f])TAIL"
    rb"|%[Ee]0%[ABab][0-9A-Fa-f]TAIL"
    rb"|%[Ee][1-9A-Ca-cE-Fe-f]TAILTAIL"
    rb"|%[Ee][Dd]%[89][0-9A-Fa-f]TAIL"
    rb"|%[Ff]0%[9ABab][0-9A-Fa-f]TAILTAIL"
    rb"|%[Ff][1-3]TAILTAILTAIL"
    rb"|%[Ff]4%8[0-9A-Fa-f]TAILTAIL)"
).replace(b"TAIL", _TAIL)


# Possessive throughout: a path is refused in one pass, whatever it holds.
_PLAIN: Final = re.compile(rb"(?=/)(?:/%b++(?<!\.))*+/?+" % _RAW).fullmatch
_ENCODED: Final = re.compile(
    rb"(?=/)(?:/(?:%b++|%b|%b)++(?<!\.)(?<!%%20))*+/?+" % (_RAW, _ENCODED_ASCII, _ENCODED_UTF8)
).fullmatch

_PROBLEMS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = tuple(
    (re.compile(pattern), problem)
    for pattern, problem in (
        (rb"\A(?!/)", "does not begin with '/'"),
        (rb"[\x00-\x20\x7f]", "holds a space or control character; write a space as %20"),
        (rb"[\x80-\xff]", "holds a raw non-ASCII byte; percent-encode its UTF-8"),
        (rb"\\", "holds '\\', which some servers read as '/'"),
        (rb";", "holds ';', which some servers cut off as a parameter"),
        (rb"[#?]", "holds '#' or '?', where some parsers end the path"),
        (rb"%(?![0-9A-Fa-f]{2})", "holds a '%' that is not followed by two hexadecimal digits"),
        (rb"%(?:2[Ff]|5[Cc])", "holds an encoded '/' or '\\', which some servers decode"),
        (rb"%25", "holds an encoded '%', which a second decoding would turn into something else"),
        (rb"%(?:[01]|7[Ff])", "holds an encoded control character"),
        (rb"%(?:3[Bb]|23|3[Ff])", "holds an encoded ';', '#' or '?', which some servers decode"),
        (
            rb"%(?:2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9AFaf]|6[1-9A-Fa-f]|7[0-9AEae])",
            "encodes a letter, digit, '-', '.', '_' or '~', which is written as itself",
        ),
        (rb"//", "holds '//', which some servers merge into '/'"),
        (rb"/\.\.?(?=/|\Z)", "holds a dot segment, which some programs resolve"),
        (rb"(?:\.|%20)(?=/|\Z)", "has a segment that ends in a dot or space, which some cut off"),
        (rb"[\"<>\[\]^`{|}]", 'holds one of "<>[]^`{|} raw; percent-encode it'),
    )
)

# Look-alikes of '/' and '\' that no normalisation form folds, but "best fit" tables do.
_SLASHES: Final = "\u2044\u2215\u2216\u29f5\u29f8\u29f9"
_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_UNFIT_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})


def canonical_problem(path: bytes) -> str | None:
    """Return why a raw request path is refused with 400, or None if it is in canonical form.

    `path` is what stands in the request line before any `?`. The answer is a phrase to be put
    after "the path", is one of a fixed few and never quotes the path. Takes time linear in
    the path; the caller caps its length.
    """
    if _PLAIN(path) is not None:
        return None
    if _ENCODED(path) is not None:
        text = unquote_to_bytes(path).decode()
        return None if text.isascii() else _unicode_problem(text)
    for pattern, problem in _PROBLEMS:
        if pattern.search(path) is not None:
            return problem
    return "holds percent-encoded bytes that are not UTF-8"


def _unicode_problem(text: str) -> str | None:
    if not unicodedata.is_normalized("NFC", text):
        return "holds text that is not in Unicode normalisation form C"
    if any(_may_be_read_as_ascii(character) for character in text if not character.isascii()):
        return "holds a character that some programs drop or read as an ASCII one"
    return None


def _may_be_read_as_ascii(character: str) -> bool:
    folded = unicodedata.normalize("NFKC", character).casefold() + character.casefold()
    return (
        any(part.isascii() for part in folded)
        or character in _SLASHES
        or unicodedata.category(character) in _UNFIT_CATEGORIES
        or _IGNORABLE.match(character) is not None
    )
