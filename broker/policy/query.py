"""Judge the query string of a request, where a scope says `query:`.

    query:
      type: public               # there, once, and equal
      sort: [created, updated]   # there, once, and one of these
      q: {glob: "repo:acme/*"}   # there, once, and like this
      page: {any: true}          # may be there, once
      "*": {any: true}           # whatever else: without this line nothing else may be there

What is listed is all that may be there, and at most once: which of two values an upstream
takes is its own choice, so a request never has two.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_to_bytes

from broker.policy.globs import Glob

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHERS: Final = "*"
"""The name under which a scope says `{any: true}` of parameters that it does not list."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one parameter may be; no alternatives: it may be absent, or anything."""

    alternatives: tuple[str | Glob, ...] = ()

    @property
    def required(self) -> bool:
        """Tell whether the parameter must be there."""
        return bool(self.alternatives)

    def accepts(self, value: str) -> bool:
        """Tell whether `value`, percent-decoded, is one of the alternatives."""
        return not self.alternatives or any(
            one.matches(value) if isinstance(one, Glob) else one == value
            for one in self.alternatives
        )


class QueryRule:
    """All that a scope says of the query string."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters: Final = {name: one for name, one in parameters.items() if name != OTHERS}
        self._required: Final = tuple(
            name for name, one in self._parameters.items() if one.required
        )
        self._open: Final = OTHERS in parameters
        self._folded: Final = frozenset(name.casefold() for name in self._parameters)

    def problem(self, query: bytes) -> str | None:
        """Return why a raw query string is refused, or None; the answer never quotes it."""
        values: dict[str, str] = {}
        for pair in filter(None, query.split(b"&")):
            name, value = (_decoded(part) for part in _split(pair))
            if name is None or value is None:
                return "the query string is malformed"
            parameter = self._parameters.get(name)
            if parameter is None:
                if not self._open or self._resembles(name):
                    return f"the query string may hold {self._listing()}"
            elif name in values:
                return f"query parameter {name!r} is there twice"
            elif not parameter.accepts(value):
                return f"query parameter {name!r} has a value that the scope does not allow"
            values[name] = value
        missing = [name for name in self._required if name not in values]
        return f"query parameter {missing[0]!r} is missing" if missing else None

    def _resembles(self, name: str) -> bool:
        # Frameworks fold case and width, read `a[]`, `a[0]` and `a.b` as parts of `a`, trim,
        # and some decode twice.
        plain = unicodedata.normalize("NFKC", unquote(name)).casefold().strip()
        return not self._folded.isdisjoint({plain, re.split(r"[\[.]", plain)[0].strip()})

    def _listing(self) -> str:
        names = ", ".join(repr(name) for name in sorted(self._parameters))
        return f"nothing that passes for {names}" if self._open else f"{names} alone"


def _split(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return name, value


def _decoded(part: bytes) -> str | None:
    if b";" in part or not part.isascii():
        return None
    spaced = part.replace(b"+", b" ")
    decoded = unquote_to_bytes(spaced)
    if decoded.count(b"%") != spaced.count(b"%25"):
        return None
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
