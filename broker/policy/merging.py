"""Put the entries of all documents together; a name defined twice is an error."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import did_you_mean
from broker.policy.document import SECTIONS, is_name
from broker.policy.source import Document, Node, Place, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.errors import Problem

_MOST_ENTRIES: Final = 10_000
_LANGUAGE: Final = 1
"""Raised when the same documents come to mean something else."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One named body of a section, and where its name stands."""

    name: str
    place: Place
    node: Node


Sections = dict[str, dict[str, Entry]]


def merge(documents: Iterable[Document], problems: list[Problem]) -> Sections:
    """Return the entries of each section by name, adding what is wrong to `problems`."""
    sections: Sections = {section: {} for section in SECTIONS}
    for document in sorted(documents, key=lambda document: document.name):
        for root in read(document, problems):
            _merge_root(root, sections, problems)
    return sections


def _merge_root(root: Node, sections: Sections, problems: list[Problem]) -> None:
    if not isinstance(root.value, dict):
        problems.append(root.place.problem(f"expected a mapping with {_listed(SECTIONS)}"))
        return
    for section, body in root.value.items():
        place = root.keys[section]
        if section not in SECTIONS:
            hint = did_you_mean(section, SECTIONS) or f"; there are {_listed(SECTIONS)}"
            problems.append(place.problem(f"unknown section {section!r}{hint}"))
        elif body.value is None:
            continue
        elif not isinstance(body.value, dict):
            problems.append(body.place.problem(f"{section}: expected a mapping of names"))
        else:
            _merge_section(section, body.value, body.keys, sections[section], problems)


def _merge_section(
    section: str,
    bodies: Mapping[str, Node],
    places: Mapping[str, Place],
    entries: dict[str, Entry],
    problems: list[Problem],
) -> None:
    for name, node in bodies.items():
        place = places[name]
        if not is_name(name):
            problems.append(
                place.problem(
                    f"{section}: {name[:80]!r} is not a name: up to 64 lower-case letters, "
                    "digits, '.', '_' and '-', a letter or digit first and last"
                )
            )
        elif name in entries:
            first = entries[name].place
            problems.append(
                place.problem(f"{section}.{name} is defined twice: here and at {first}")
            )
        elif len(entries) == _MOST_ENTRIES:
            problems.append(place.problem(f"{section} has more than {_MOST_ENTRIES} entries"))
            return
        else:
            entries[name] = Entry(name, place, node)
            problems.extend(
                # A field that is there and empty is half a thought: whether it was to widen
                # or to narrow, nobody can tell.
                empty.problem(f"{section}.{name}: no value; leave the field out or give it one")
                for empty in node.places_of_none()
            )


def version_of(sections: Sections) -> str:
    """Return `sha256:` and the digest of what the documents say.

    Comments, layout, the order of keys and the division into files make no difference.
    """
    content = {
        section: {name: entry.node.plain() for name, entry in entries.items()}
        for section, entries in sections.items()
    }
    canonical = json.dumps(
        {"language": _LANGUAGE, **content}, sort_keys=True, separators=(",", ":")
    )
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
