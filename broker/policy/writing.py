"""Write policy as documents that load again: for entries kept elsewhere, and for export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import yaml

from broker.policy.document import SECTIONS
from broker.policy.scalars import plain_scalar
from broker.policy.source import Document, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.policy.source import Node

_NEVER_WRAP: Final = 1 << 30


def entry_document(origin: str, section: str, name: str, body: Any) -> Document:
    """Return a document of one entry; `body` is what JSON can hold, `origin` where it is kept.

    It is written as JSON, in which no two values begin at the same place: `fields_by_place` finds
    the field back that a problem is about.
    """
    text = json.dumps({section: {name: body}}, ensure_ascii=False, indent=1, allow_nan=False)
    return Document(f"{origin}:{section}/{name}", text)


def fields_by_place(document: Document) -> dict[tuple[int, int], tuple[str | int, ...]]:
    """Return the path within an `entry_document`'s entry of what begins at a line and column."""
    return {
        (line, column): path[2:]
        for root in read(document, [])
        for path, line, column in _places(root, ())
    }


def _places(
    node: Node, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], int, int]]:
    yield path, node.place.line, node.place.column
    if isinstance(node.value, dict):
        for name, child in node.value.items():
            key = node.keys[name]
            yield (*path, name), key.line, key.column
            yield from _places(child, (*path, name))
    elif isinstance(node.value, tuple):
        for index, child in enumerate(node.value):
            yield from _places(child, (*path, index))


def policy_text(
    sections: Mapping[str, Mapping[str, Any]], remarks: Mapping[tuple[str, str], str] | None = None
) -> str:
    """Return YAML for people, of which the loader makes the same entries again.

    `remarks` are put before the entries that they are about, by section and name, as comments.
    """
    lines: list[str] = []
    for section in SECTIONS:
        entries = sections.get(section)
        if not entries:
            continue
        lines += ["", f"{section}:"] if lines else [f"{section}:"]
        for name, body in entries.items():
            remark = (remarks or {}).get((section, name))
            if remark:
                lines.append(f"  # {_one_line(remark)}")
            lines += (f"  {line}" for line in _dumped({name: body}).splitlines())
    return "\n".join(lines) + "\n" if lines else ""


def _one_line(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class _Dumper(yaml.SafeDumper):
    """Quote whatever YAML readers disagree about, and repeat rather than refer."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = plain_scalar(text) == text
    except ValueError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def _dumped(value: Any) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        allow_unicode=True,
        sort_keys=False,
        width=_NEVER_WRAP,
        default_flow_style=None,
    )
    return text
