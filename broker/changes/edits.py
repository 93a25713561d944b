"""Edits to the policy, what is wrong with them, and where problems of a policy are found back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.audit.patterns import PRIVATE_KEY, SHAPE, kind_at
from broker.errors import InvalidRequest, StorageError
from broker.policy.document import SECTIONS, is_name
from broker.policy.merging import merge
from broker.policy.references import KEPT, is_kept
from broker.policy.source import Place
from broker.policy.writing import entry_document, fields_by_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from broker.errors import Problem
    from broker.model import PolicyEntry
    from broker.policy.source import Document
    from broker.storage.base import KeptPolicy

    Key = tuple[str, str]

ANY_STATE: Final = "*"

_LONGEST_COMMENT: Final = 500


@dataclass(frozen=True, slots=True)
class Edit:
    """One entry as it is to be: `body` as JSON has it, None to remove the entry.

    `expected` is the etag of the entry as the caller knows it, `ANY_STATE` for one that is there
    in whatever state, None for one that is not there yet.
    """

    section: str
    name: str
    body: Any
    expected: str | None

    @property
    def place(self) -> str:
        """The section and the name, as one."""
        return f"{self.section}/{self.name}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a policy does not load: in which entry and field, or at which place of a file."""

    message: str
    section: str | None
    name: str | None
    field: str
    place: str | None


def body_of(entry: PolicyEntry) -> Any:
    """Return what an entry says; raise `StorageError` if it is not what was once stored."""
    try:
        return json.loads(entry.body)
    except ValueError:
        raise StorageError(
            f"the database holds no readable {entry.section}/{entry.name}: somebody has edited it, "
            "or it is damaged; restore a backup"
        ) from None


def documents_of(kept: KeptPolicy) -> tuple[Document, ...]:
    """Return the documents that the kept entries stand for, one each."""
    return tuple(
        entry_document(KEPT, entry.section, entry.name, body_of(entry)) for entry in kept.entries
    )


def edit_documents(edits: Iterable[Edit]) -> tuple[Document, ...]:
    """Return the documents that edits put in place, one each."""
    return tuple(
        entry_document(KEPT, edit.section, edit.name, edit.body)
        for edit in edits
        if edit.body is not None
    )


def findings(problems: Iterable[Problem], documents: Iterable[Document]) -> tuple[Finding, ...]:
    """Return problems with the entry and the field that each is about, where it is about one."""
    by_name = {document.name: document for document in documents}
    fields: dict[str, Mapping[tuple[int, int], tuple[str | int, ...]]] = {}
    found = []
    for problem in problems:
        document = by_name.get(problem.file)
        if document is None or not is_kept(problem.file):
            place = f"{problem.file}:{problem.line}:{problem.column}"
            found.append(Finding(problem.message, None, None, "", place))
            continue
        if document.name not in fields:
            fields[document.name] = fields_by_place(document)
        path = fields[document.name].get((problem.line, problem.column), ())
        section, _, name = problem.file.partition(":")[2].partition("/")
        found.append(Finding(problem.message, section, name, dotted(path), None))
    return tuple(found)


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as people write it: `trust[0].source`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def canonical(body: Any) -> str:
    """Return JSON that is the same for equal bodies, their members in the order given."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def key_of(edit: Edit) -> Key:
    """Return the section and name."""
    return edit.section, edit.name


def require_sound(edits: Sequence[Edit]) -> None:
    """Raise `InvalidRequest` for edits that make no sense, whatever the policy."""
    seen: set[Key] = set()
    for edit in edits:
        if edit.section not in SECTIONS:
            raise InvalidRequest(
                f"there is no section {edit.section[:80]!r}; there are {', '.join(SECTIONS)}",
                field="section",
            )
        if not is_name(edit.name):
            raise InvalidRequest(
                "a name is up to 64 lower-case letters, digits, '.', '_' and '-', and begins and "
                "ends with a letter or digit",
                field="name",
            )
        if key_of(edit) in seen:
            raise InvalidRequest(f"{edit.place} is changed twice in one change", field="changes")
        seen.add(key_of(edit))


def require_comment(comment: str | None) -> None:
    """Raise `InvalidRequest` for a comment that is not one line of ordinary text."""
    if comment is None:
        return
    if len(comment) > _LONGEST_COMMENT or not comment.isprintable():
        raise InvalidRequest(
            f"a comment is one line of at most {_LONGEST_COMMENT} characters", field="comment"
        )
    if _kind(comment) is not None:
        raise InvalidRequest("the comment holds what looks like a credential", field="comment")


def secrets_in(edits: Iterable[Edit]) -> tuple[Problem, ...]:
    """Return the places of values that look like secrets: these are referred to, never kept."""
    problems: list[Problem] = []
    for edit in edits:
        found = [(path, kind) for path, text in _texts(edit.body, ()) if (kind := _kind(text))]
        if not found:
            continue
        document = entry_document(KEPT, edit.section, edit.name, edit.body)
        entry = merge((document,), [])[edit.section].get(edit.name)
        for path, kind in found:
            message = (
                f"{edit.place}: a value looks like a secret ({kind}); put it into a secret "
                "backend, such as with `broker secret put`, and write its reference here"
            )
            place = entry.node.place_of(path) if entry else Place(document.name, 1, 1)
            problems.append(place.problem(message))
    return tuple(problems)


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield path, name
            yield from _texts(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))


def _kind(text: str) -> str | None:
    match = SHAPE.search(text)
    if match is not None:
        return kind_at(text, match.start())
    return "private-key" if PRIVATE_KEY.search(text) else None
