"""Match text against `{glob: ...}`: anchored, and `*` does not cross a `/`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FREE = r"[^/\x00-\x1f\x7f]"
"""What `*` stands for: no separator, and no character that has no place in a name."""


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern: `*` is any printable characters but `/`, or none; all else is itself."""

    pattern: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", re.compile(_expression(self.pattern)))

    def matches(self, text: str) -> bool:
        """Tell whether the whole of `text` is like the pattern; linear in both."""
        return self._compiled.fullmatch(text) is not None


def parse_glob(pattern: object) -> Glob:
    """Return the glob that `pattern` is.

    Raises:
        ValueError: when it is none; the text says what to write.
    """
    if not isinstance(pattern, str) or not pattern:
        raise ValueError("expected text after 'glob:', such as 'refs/tags/*'")
    if "*" not in pattern:
        raise ValueError("a glob without '*' is plain text: write it without 'glob:'")
    if "**" in pattern:
        raise ValueError("'*' does not cross '/', and '**' means nothing more")
    return Glob(pattern)


def _expression(pattern: str) -> str:
    first, *middle, last = (re.escape(part) for part in pattern.split("*"))
    # Where a literal can stand, its first place leaves most to the stars after it, so it is
    # taken for good (an atomic group): no pattern makes matching slow.
    found = "".join(f"(?>{_FREE}*?{literal})" for literal in middle)
    return f"{first}{found}{_FREE}*{last}"
