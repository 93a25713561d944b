"""Judge the query string of a request, where a scope says `query:`.

    query:
      type: public               # there, once, and equal
      sort: [created, updated]   # there, once, and one of these
      q: {glob: "repo:acme/*"}   # there, once, and like this
      limit: {max: 100}          # there, once, and a number from 0 to 100
      page: {any: true}          # may be there, once
      "*": {any: true}           # whatever else: without this line nothing else may be there

What is listed is all that may be there, and at most once: which of two values an upstream
takes is its own choice, so a request never has two. A form's body is judged alike (`body`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from broker.policy.bounds import AtMost, parse_at_most
from broker.policy.globs import Glob, parse_glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_STRANGE: Final = 4096
"""Characters in all names that are not listed and not ASCII: folding them takes its time."""

TOO_STRANGE: Final = f"of more than {MOST_STRANGE} characters that are not all ASCII"

OTHERS: Final = "*"
"""The name under which a scope says `{any: true}` of parameters that it does not list."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one parameter may be; no alternatives: it may be absent, or anything."""

    alternatives: tuple[str | Glob | AtMost, ...] = ()

    @property
    def required(self) -> bool:
        """Tell whether the parameter must be there."""
        return bool(self.alternatives)

    def accepts(self, value: str) -> bool:
        """Tell whether `value`, percent-decoded, is one of the alternatives."""
        return not self.alternatives or any(
            one == value if isinstance(one, str) else one.matches(value)
            for one in self.alternatives
        )


class Wording(NamedTuple):
    """What the whole and a part of it are called in messages; may a value have `lines`?"""

    whole: str
    part: str
    lines: bool = False


METHOD_NAMES: Final = ("_method", ".method")
"""Parameters that many frameworks take for the request's method, as they are commonly written."""

_METHOD: Final = re.compile(
    rb"(?:\A|[&;])(?:[+ ]|%20)*+(?:[_.]|%5f|%2e)"
    rb"(?:m|%[46]d)(?:e|%[46]5)(?:t|%[57]4)(?:h|%[46]8)(?:o|%[46]f)(?:d|%[46]4)"
    rb"(?:[+ ]|%20)*+(?=[=&;\[]|%5b|%00|\Z)",
    re.IGNORECASE,
)


def names_method(query: bytes) -> bool:
    """Tell whether a raw query string has a parameter of `METHOD_NAMES`, however it is spelt."""
    # Mostly nothing is encoded, and the whole need not be looked at so closely.
    may = b"%" in query or b"ethod" in query.lower()
    return may and _METHOD.search(query) is not None


_WITHOUT_LINES: Final = str.maketrans("", "", "\r\n\t")
_QUERY: Final = Wording("the query string", "query parameter")


class QueryRule:
    """All that a scope says of the query string.

    Without parameters there may be none. `reserved` are names that only a listed parameter may
    have, for they mean something elsewhere in the request.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        *,
        reserved: Iterable[str] = (),
        wording: Wording = _QUERY,
    ) -> None:
        self._parameters: Final = {name: one for name, one in parameters.items() if name != OTHERS}
        self._required: Final = tuple(
            name for name, one in self._parameters.items() if one.required
        )
        self._open: Final = OTHERS in parameters
        self._folded: Final = frozenset(name.casefold() for name in (*self._parameters, *reserved))
        self._whole, self._part, self._lines = wording
        self.names: Final = tuple(self._parameters)

    def problem(self, query: bytes) -> str | None:
        """Return why a raw query string is refused, or None; the answer never quotes it."""
        values: dict[str, str] = {}
        strange = 0
        for pair in filter(None, query.split(b"&")):
            written = _split(pair)
            name, value = _decoded(written[0]), _decoded(written[1], lines=self._lines)
            if name is None or value is None:
                return f"{self._whole} is malformed"
            parameter = self._parameters.get(name)
            if parameter is None:
                strange += 0 if name.isascii() else len(name)
                if strange > MOST_STRANGE:
                    return f"{self._whole} has names {TOO_STRANGE}"
                if not self._open or self._resembles(name):
                    return f"{self._whole} may hold {self._listing()}"
            elif name in values:
                return f"{self._part} {name!r} is there twice"
            elif not parameter.accepts(value):
                return f"{self._part} {name!r} has a value that the scope does not allow"
            values[name] = value
        missing = [name for name in self._required if name not in values]
        return f"{self._part} {missing[0]!r} is missing" if missing else None

    def _resembles(self, name: str) -> bool:
        # Frameworks fold case and width, read `a[]`, `a[0]` and `a.b` as parts of `a`, trim,
        # and some decode twice.
        plain = unicodedata.normalize("NFKC", unquote(name)).casefold().strip()
        return not self._folded.isdisjoint(
            {plain, re.split(r"[\[.]", plain, maxsplit=1)[0].strip()}
        )

    def _listing(self) -> str:
        names = ", ".join(repr(name) for name in sorted(self._parameters))
        if self._open:
            return f"nothing that passes for {names or 'a field of the body'}"
        return f"{names} alone" if names else "nothing"


def _split(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return name, value


def _decoded(part: bytes, *, lines: bool = False) -> str | None:
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
    shown = text.translate(_WITHOUT_LINES) if lines else text
    return text if shown.isprintable() else None


def parse_parameters(value: object) -> dict[str, Parameter]:
    """Return the parameters that a policy lists, and what each may be.

    Raises:
        ValueError: when it lists none, or none that could be; the text says what to write.
    """
    if not isinstance(value, dict) or not value:
        raise ValueError("expected parameters and what each may be, such as {type: public}")
    parameters = {name: _parameter(name, one) for name, one in value.items()}
    if OTHERS in parameters and parameters[OTHERS].required:
        raise ValueError(f"{OTHERS!r} (all other parameters) takes {{any: true}} alone")
    return parameters


def _parameter(name: str, value: object) -> Parameter:
    if isinstance(value, dict) and set(value) == {"any"} and value["any"] is True:
        return Parameter()
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError(f"{name}: an empty list matches nothing; list at least one value")
    return Parameter(tuple(_parameter_value(name, one) for one in values))


def _parameter_value(name: str, value: object) -> str | Glob | AtMost:
    if isinstance(value, dict) and set(value) == {"glob"}:
        return parse_glob(value["glob"])
    if isinstance(value, dict) and set(value) == {"max"}:
        return parse_at_most(value["max"])
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(
        f"{name}: expected text, a list of texts, {{glob: ...}}, {{max: ...}} or {{any: true}}"
    )
