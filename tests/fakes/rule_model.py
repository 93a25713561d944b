"""What a policy means, as plainly as can be: character by character, segment by segment.

It shares nothing with the implementation, and is in no hurry. `judged` is the whole of it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
_RAW = _PLAIN + "!$&'()*+,=:@"
_NEVER = "/\\;#?%"  # however they are written
_LOOK_ALIKES = "\u2044\u2215\u2216\u29f5\u29f8\u29f9"
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"


@dataclass
class Scope:
    """Rules as they are written: `METHOD /path`."""

    allow: list[str]
    deny: list[str] = field(default_factory=list)


def judged(scopes: list[Scope], method: str, path: bytes) -> str:
    """Return "400", "allow" or "deny" for the raw path of a request."""
    segments = _segments(path)
    if segments is None:
        return "400"
    raw = path.decode().split("/")[1:]
    allowed = any(
        any(_speaks(rule, method) and is_meant(_parts(rule), raw) for rule in scope.allow)
        and not any(_speaks(rule, method) and _forbids(rule, segments) for rule in scope.deny)
        for scope in scopes
    )
    return "allow" if allowed else "deny"


def _segments(path: bytes) -> list[str] | None:
    """Return the decoded segments of a path that can be read in one way only."""
    if not path.startswith(b"/") or b"//" in path:
        return None
    segments = [_decoded(segment) for segment in path[1:].split(b"/")]
    if None in segments:
        return None
    found = [one for one in segments if one is not None]
    return None if any(one.endswith((".", " ")) for one in found) else found


def _decoded(segment: bytes) -> str | None:
    plain, rest = bytearray(), segment
    while rest:
        if rest[:1] != b"%":
            if chr(rest[0]) not in _RAW:
                return None
            plain, rest = plain + rest[:1], rest[1:]
            continue
        try:
            code = int(rest[1:3].decode("ascii"), 16) if rest[1:3].isalnum() else -1
        except ValueError:
            return None
        needless = code < 0x80 and (
            chr(max(code, 0)) in _PLAIN + _NEVER or code in {*range(32), 127}
        )
        if len(rest) < 3 or code < 0 or needless:
            return None
        plain, rest = plain + bytes([code]), rest[3:]
    try:
        text = plain.decode()
    except UnicodeDecodeError:
        return None
    fits = unicodedata.normalize("NFC", text) == text and not any(map(_is_unfit, text))
    return text if fits else None


def _is_unfit(character: str) -> bool:
    """Tell whether some programs drop a character, or take it for an ASCII one."""
    if character.isascii():
        return False
    likeness = unicodedata.normalize("NFKC", character).casefold() + character.casefold()
    unseen = character in _UNSEEN or 0xFE00 <= ord(character) <= 0xFE0F
    selector = 0x180B <= ord(character) <= 0x180F or 0xE0000 <= ord(character) <= 0xE0FFF
    odd = unicodedata.category(character) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"}
    return odd or unseen or selector or character in _LOOK_ALIKES or any(map(str.isascii, likeness))


def _speaks(rule: str, method: str) -> bool:
    return rule.split(" ", maxsplit=1)[0] in {"*", method}


def _parts(rule: str) -> list[str]:
    return rule.split(" /", 1)[1].split("/")


def _forbids(rule: str, segments: list[str]) -> bool:
    """A deny rule speaks of every spelling: letter case, escapes, a trailing slash."""
    pattern = [_decoded(part.encode()) or part for part in _parts(rule)]
    folded = [[one.casefold() for one in path] for path in (pattern, segments)]
    return is_meant(*(one[:-1] if len(one) > 1 and not one[-1] else one for one in folded))


def is_like(pattern: str, segment: str) -> bool:
    """Tell whether one segment is like another that may hold one `*`."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == segment
    enough = len(segment) > len(before) + len(after)
    return enough and segment.startswith(before) and segment.endswith(after)


def is_meant(pattern: list[str], path: list[str]) -> bool:
    """Tell whether the segments of a path are those of a rule, which may hold `**`."""
    if not pattern:
        return not path
    first, *rest = pattern
    if first == "**":
        taken = range(len(path) + 1)
        if not rest:
            return all(path[:-1])
        return any(all(path[:count]) and is_meant(rest, path[count:]) for count in taken)
    return bool(path) and is_like(first, path[0]) and is_meant(rest, path[1:])
