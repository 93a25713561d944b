"""Parse the rules of a scope, `METHOD PATH`, and turn them into regular expressions.

A path is a list of segments. `*` stands for one segment that is not empty, or for a part of
one that is not empty (`/models/*:generate`); `**` stands for any number of segments, none
included, and for a trailing slash: `/v1/**` is `/v1`, `/v1/` and whatever lies below. All
else stands for exactly these bytes.

An allow rule matches the bytes as they are written. A deny rule also matches what upstreams
commonly take for the same path (another letter case, a character percent-encoded or not, a
trailing slash), for a denial must not be a matter of spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from broker.errors import did_you_mean
from broker.policy.canonical import RAW_RESERVED, canonical_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

# fmt: off
METHODS: Final = frozenset({
    "ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "M-SEARCH",
    "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST",
    "PROPFIND", "PROPPATCH", "PURGE", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE",
    "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
})
# fmt: on
"""What a rule may name and `*` stands for: IANA's methods that a gateway can forward.

TRACE echoes the credential to its sender and CONNECT asks for a tunnel: no rule allows them.
"""

_MOST_BYTES: Final = 1024
_ANY_SEGMENTS: Final = "**"
_SEGMENT: Final = rb"[^/]++"
_SEGMENTS_LAZILY: Final = rb"(?:/[^/]++)*?"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as written, its method (or `*`) and the segments of its path."""

    text: str
    method: str
    segments: tuple[str, ...]

    def names(self, method: str) -> bool:
        """Tell whether the rule speaks of `method`, one of `METHODS`."""
        return self.method in {"*", method}

    def allows(self, path: bytes) -> bool:
        """Tell whether the rule as an allow rule matches a canonical path."""
        return _compiled(self.segments, False).fullmatch(path) is not None

    def denies(self, path: bytes) -> bool:
        """Tell whether the rule as a deny rule matches a canonical path."""
        return _compiled(self.segments, True).fullmatch(path) is not None


def parse_rule(text: object) -> Rule:
    """Return the rule that `text` is.

    Raises:
        ValueError: when it is none, or can match no request; the text says what to write.
    """
    if not isinstance(text, str) or not re.fullmatch(r"\S+ \S+", text):
        raise ValueError("expected 'METHOD PATH' with one space between, such as 'GET /v1/**'")
    method, path = text.split(" ")
    if method != "*" and method not in METHODS:
        raise ValueError(_method_problem(method))
    if len(path) > _MOST_BYTES:
        raise ValueError(f"the path is longer than {_MOST_BYTES} characters")
    if re.search(r"\{(?:agent|task|grant|claims)", path):
        raise ValueError("a rule takes no templates; write '*' for a segment that varies")
    problem = canonical_problem(path.encode(errors="backslashreplace"))
    if problem is not None:
        raise ValueError(f"the path {problem}; a request with such a path is always refused")
    segments = tuple(path[1:].split("/"))
    for segment, following in zip(segments, (*segments[1:], ""), strict=True):
        if segment != _ANY_SEGMENTS and ("**" in segment or segment.count("*") > 1):
            raise ValueError(
                f"in {segment!r}: '*' may stand once in a segment, and '**' must be a whole one"
            )
        if segment == following == _ANY_SEGMENTS:
            raise ValueError("'**/**' means what '**' means; write '**'")
    return Rule(text, method, segments)


def _method_problem(method: str) -> str:
    if method in {"TRACE", "CONNECT"}:
        return f"{method} is never allowed, so no rule speaks of it"
    if method.upper() in METHODS:
        return f"methods are upper case: write {method.upper()!r}"
    return f"{method[:32]!r} is not a method{did_you_mean(method.upper(), METHODS)}"


def allow_expression(rule: Rule) -> bytes:
    """Return a regular expression for the paths that the rule allows, which must then end."""
    return _expression(rule.segments, deny=False)


def deny_expression(rule: Rule) -> bytes:
    """Return a regular expression for the paths that the rule denies, which must then end."""
    return b"(?i:%b)" % _expression(rule.segments, deny=True)


@lru_cache(maxsize=4096)
def _compiled(segments: tuple[str, ...], deny: bool) -> re.Pattern[bytes]:  # noqa: FBT001
    expression = _expression(segments, deny=deny)
    return re.compile(b"(?i:%b)" % expression if deny else expression)


def _expression(segments: tuple[str, ...], *, deny: bool) -> bytes:
    if deny and len(segments) > 1 and not segments[-1]:
        segments = segments[:-1]
    first, *rest = _blocks(segments, deny=deny)
    if not rest:
        return first + (b"/?+" if deny else b"")
    *middle, last = rest
    # The earliest place for a block leaves most to what follows, so it is taken for good
    # (an atomic group) and matching stays linear in the path however many `**` there are.
    found = b"".join(b"(?>%b%b(?=/|\\Z))" % (_SEGMENTS_LAZILY, block) for block in middle)
    if not last:
        return first + found + rb"(?:/(?s:.*+))?+"
    return first + found + _SEGMENTS_LAZILY + last + (b"/?+" if deny else b"")


def _blocks(segments: tuple[str, ...], *, deny: bool) -> Iterator[bytes]:
    block = b""
    for segment in segments:
        if segment == _ANY_SEGMENTS:
            yield block
            block = b""
        else:
            block += b"/" + _segment_expression(segment, deny=deny)
    yield block


def _segment_expression(segment: str, *, deny: bool) -> bytes:
    literal = _spellings if deny else _exact
    before, star, after = segment.partition("*")
    if not star:
        return literal(segment)
    if not before and not after:
        return _SEGMENT
    if not after:
        return literal(before) + _SEGMENT
    return b"(?>%b[^/]+%b(?=/|\\Z))" % (literal(before), literal(after))


def _exact(text: str) -> bytes:
    return re.escape(text.encode())


def _spellings(text: str) -> bytes:
    return b"".join(_spellings_of(character) for character in unquote(text))


def _spellings_of(character: str) -> bytes:
    if character.isascii():
        raw = re.escape(character.encode())
        if character.isalnum() or character in "-._~":
            return raw
        encoded = b"%%%02X" % ord(character)
        return b"(?:%b|%b)" % (raw, encoded) if character.encode() in RAW_RESERVED else encoded
    cases = _characters_by_case().get(character.casefold(), [character])
    return b"(?:%b)" % b"|".join(
        b"".join(b"%%%02X" % byte for byte in case.encode()) for case in cases
    )


@cache
def _characters_by_case() -> dict[str, list[str]]:
    """Return the non-ASCII characters that are one but for their case, by their folded form."""
    cases: dict[str, list[str]] = {}
    for character in map(chr, range(0x80, 0x20000)):
        folded = character.casefold()
        if folded != character:
            cases.setdefault(folded, [folded]).append(character)
    return cases
