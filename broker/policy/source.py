"""Read YAML into nodes that know their place, without trusting the text.

No tag constructs anything, no scalar is guessed at, a key given twice is an error, and size,
depth and the expansion of aliases are bounded, so that any text is read or refused quickly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from broker.errors import Problem
from broker.policy.scalars import Scalar, plain_scalar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

MOST_CHARACTERS: Final = 1 << 20
"""The size of one document."""

_MOST_NODES: Final = 100_000
_DEEPEST: Final = 24
_ENTRY_DEPTH: Final = 3
_SWITCHES: Final = frozenset({"scrub"})
"""Fields of services that are `on` or `off`: they mean the same to those who read a boolean."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Control characters, halves of surrogate pairs, and marks that make text read otherwise than
# it is (Trojan Source, CVE-2021-42574).
_UNFIT: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)


@dataclass(frozen=True, slots=True)
class Document:
    """One policy document: what to call it in messages, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a document; line and column count from 1."""

    file: str
    line: int
    column: int

    def problem(self, message: str) -> Problem:
        """Return a problem at this place."""
        return Problem(self.file, self.line, self.column, message)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A YAML value and where it stands; `keys` tells where each key of a mapping stands.

    `size` and `height` count the nodes and levels below, every use of an alias included.
    """

    place: Place
    value: Scalar | tuple[Node, ...] | dict[str, Node]
    keys: dict[str, Place]
    size: int = 1
    height: int = 1

    def plain(self) -> Any:
        """Return the value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return [node.plain() for node in self.value]
        return self.value

    def place_of(self, path: Sequence[str | int], *, key: bool = False) -> Place:
        """Return where `path` leads, or as near to it as the document goes.

        Steps that lead nowhere are passed over: pydantic puts the names of union members among
        them. With `key`, the place of the last step's key, not of its value.
        """
        node, place = self, self.place
        for step in path:
            child = node.child(step)
            if child is not None:
                place = node.keys.get(str(step), child.place) if key else child.place
                node = child
        return place

    def at(self, path: Sequence[str | int]) -> Node | None:
        """Return the node to which `path` leads, or None."""
        node: Node | None = self
        for step in path:
            node = None if node is None else node.child(step)
        return node

    def place_of_text(self, text: str) -> Place:
        """Return where a scalar of this text stands first, or else the node's own place."""
        return next((node.place for node in self._scalars() if node.value == text), self.place)

    def places_of_none(self) -> Iterator[Place]:
        """Yield the place of each value that is absent or null."""
        return (node.place for node in self._scalars() if node.value is None)

    def _scalars(self) -> Iterator[Node]:
        pending = [self]
        while pending:
            node = pending.pop()
            if isinstance(node.value, dict):
                pending.extend(reversed(node.value.values()))
            elif isinstance(node.value, tuple):
                pending.extend(reversed(node.value))
            else:
                yield node

    def only(self, names: Collection[str]) -> Node:
        """Return the mapping with these keys alone; a node that is none stays as it is."""
        if not isinstance(self.value, dict):
            return self
        return replace(self, value={key: one for key, one in self.value.items() if key in names})

    def without(self, names: Collection[str]) -> Node:
        """Return the mapping without these keys; a node that is none stays as it is."""
        if not isinstance(self.value, dict):
            return self
        return self.only(self.value.keys() - names)

    def child(self, step: str | int) -> Node | None:
        """Return the node one step down, or None."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, tuple) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None


def read(document: Document, problems: list[Problem]) -> tuple[Node, ...]:
    """Return the roots of a document's YAML, one for each `---` part that is not empty.

    Whatever is wrong with it is added to `problems`; what can be read despite that is returned.
    """
    reader = _Reader(document, problems)
    try:
        return tuple(reader.roots())
    except _Unreadable as error:
        problems.append(error.problem)
        return ()


class _Unreadable(Exception):
    """A problem after which the rest of a document makes no sense."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.problem = place.problem(message)


class _Reader:
    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self._name: Final = document.name
        self._text: Final = document.text
        self._problems: Final = problems
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def roots(self) -> Iterator[Node]:
        self._require_fit_text()
        try:
            events = iter(yaml.parse(self._text, Loader=_LOADER))
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors = {}
                    root = self._node(next(events), events, 1)
                    if root.value is not None:
                        yield root
        except yaml.YAMLError as error:
            raise self._syntax_error(error) from None

    def _require_fit_text(self) -> None:
        if len(self._text) > MOST_CHARACTERS:
            raise _Unreadable(
                Place(self._name, 1, 1),
                f"a document has at most {MOST_CHARACTERS} characters; split it",
            )
        unfit = _UNFIT.search(self._text)
        if unfit is not None:
            line = self._text.count("\n", 0, unfit.start()) + 1
            column = unfit.start() - self._text.rfind("\n", 0, unfit.start())
            raise _Unreadable(Place(self._name, line, column), _unfit(unfit))

    def _syntax_error(self, error: yaml.YAMLError) -> _Unreadable:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        starred = "alias" in (getattr(error, "context", None) or "")
        hint = "; a value that begins with '*' needs quotes" if starred else ""
        place = Place(self._name, 1, 1) if mark is None else self._place(mark)
        return _Unreadable(place, f"not YAML: {what}{hint}")

    def _place(self, mark: Any) -> Place:
        return Place(self._name, mark.line + 1, mark.column + 1)

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self._place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event.anchor or "", place)
            self._count(node.size, place)
        else:
            node = self._own_node(event, events, depth, place)
            self._count(1, place)
        if depth + node.height - 1 > _DEEPEST:
            raise _Unreadable(place, f"nested more than {_DEEPEST} levels deep")
        return node

    def _count(self, nodes: int, place: Place) -> None:
        self._nodes += nodes
        if self._nodes > _MOST_NODES:
            raise _Unreadable(
                place, f"a document has at most {_MOST_NODES} values, aliases expanded"
            )

    def _alias(self, anchor: str, place: Place) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _Unreadable(
                place,
                f"*{anchor[:40]} is no complete anchor before this place; "
                "a value that begins with '*' needs quotes",
            )
        return node

    def _own_node(self, event: Any, events: Iterator[Any], depth: int, place: Place) -> Node:
        if event.tag is not None:
            raise _Unreadable(place, f"tags such as {event.tag[:40]!r} have no use in policies")
        if depth > _DEEPEST:
            raise _Unreadable(place, f"nested more than {_DEEPEST} levels deep")
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(events, depth, place)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(events, depth, place)
        else:
            node = Node(place, self._scalar(event, place), {})
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any, place: Place) -> Scalar:
        text: str = event.value
        unfit = _UNFIT.search(text)
        if unfit is not None:
            self._problems.append(place.problem(_unfit(unfit)))
        if not event.implicit[0]:
            return text
        try:
            return plain_scalar(text)
        except ValueError as error:
            self._problems.append(place.problem(str(error)))
            return text

    def _sequence(self, events: Iterator[Any], depth: int, place: Place) -> Node:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, depth + 1))
        return Node(place, tuple(items), {}, *_extent(items))

    def _mapping(self, events: Iterator[Any], depth: int, place: Place) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event, events, depth + 1)
            name, following = key.value, next(events)
            if depth == _ENTRY_DEPTH and name in _SWITCHES and _is_switch(following):
                following.implicit = (False, True)  # as if it stood in quotes
            value = self._node(following, events, depth + 1)
            if not isinstance(name, str):
                what = "a key is text; put it in quotes if it looks like more"
                self._problems.append(key.place.problem(what))
            elif name in keys:
                what = f"{name!r} is given twice, first in line {keys[name].line}"
                self._problems.append(key.place.problem(what))
            else:
                values[name], keys[name] = value, key.place
        return Node(place, values, keys, *_extent(values.values()))


def _is_switch(event: Any) -> bool:
    # An anchor could be used again where text and booleans are not the same.
    is_plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0] and not event.anchor
    return is_plain and event.value in {"on", "off"}


def _extent(children: Collection[Node]) -> tuple[int, int]:
    return (
        1 + sum(child.size for child in children),
        1 + max((child.height for child in children), default=0),
    )


def _unfit(character: re.Match[str]) -> str:
    return f"holds the unprintable character U+{ord(character[0]):04X}; remove it"
