"""Change the policy that is kept in the store: judged as a whole first, stored as a new version.

Documents in files and entries in the store make one policy together. Files are changed by people
and their tools; what is kept in the store is changed here, and only if the policy that results
loads. A change is one transaction, whatever the number of its edits.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from broker.changes.edits import (
    ANY_STATE,
    Edit,
    body_of,
    canonical,
    findings,
    key_of,
    require_comment,
    require_sound,
    secrets_in,
)
from broker.errors import PolicyConflict, PolicyError
from broker.model import PolicyChange, PolicyEdit
from broker.policy.merging import merge
from broker.policy.references import KEPT
from broker.policy.writing import entry_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from broker.changes.edits import Finding, Key
    from broker.errors import Problem
    from broker.model import PolicyEntry, Section
    from broker.policy.engine import Policy
    from broker.policy.source import Document
    from broker.storage.base import KeptPolicy, PolicyHistory

_ATTEMPTS: Final = 20
_JUDGED_AT_ONCE: Final = 2  # loading takes processor time from the gateway beside it


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of a change: the version that it made (None: all was so before), the policy."""

    change: PolicyChange | None
    kept: KeptPolicy
    policy: Policy


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges policies: `load` raises `PolicyError`; `find` is told names to assume."""

    files: Callable[[], tuple[Document, ...]]
    load: Callable[[Iterable[Document]], Policy]
    find: Callable[[Iterable[Document], Mapping[str, frozenset[str]]], tuple[Problem, ...]]


class KeptPolicies:
    """Judge changes to the policy that `history` keeps, and make them."""

    def __init__(self, history: PolicyHistory, judges: Judges) -> None:
        self._history: Final = history
        self._judges: Final = judges
        self._changing: Final = asyncio.Lock()
        self._judging: Final = asyncio.Semaphore(_JUDGED_AT_ONCE)

    async def judge(
        self, edits: Sequence[Edit], assumed: Mapping[str, frozenset[str]]
    ) -> tuple[Finding, ...]:
        """Return why the policy would not load with these edits; nothing is changed.

        `assumed` are names, by section, of entries that will be there and cannot be told yet.
        States that edits expect are not looked at.
        """
        require_sound(edits)
        kept = await self._history.kept()
        async with self._judging:
            return await asyncio.to_thread(self._findings, kept, edits, assumed)

    async def change(
        self, edits: Sequence[Edit], *, by: str, comment: str | None, now: float
    ) -> Changed:
        """Make a change, if the policy loads with it.

        Raises:
            InvalidRequest: the edits make no sense, whatever the policy.
            PolicyConflict: an entry is not as an edit expects it.
            PolicyError: the policy would not load.
            StorageError: it could not be stored.
        """
        require_sound(edits)
        require_comment(comment)

        async def the_same(_kept: KeptPolicy) -> Sequence[Edit]:
            return edits

        return await self._change(the_same, by, comment, now)

    async def _change(
        self,
        plan: Callable[[KeptPolicy], Awaitable[Sequence[Edit]]],
        by: str,
        comment: str | None,
        now: float,
    ) -> Changed:
        """Make the edits that `plan` returns for what is kept, asked anew after each overtaking."""
        async with self._changing:  # one after the other here; other processes may be faster
            for _ in range(_ATTEMPTS):
                kept = await self._history.kept()
                edits = await plan(kept)
                self._require_expected(kept, edits)
                changed = await self._store(kept, edits, by, comment, now)
                if changed is not None:
                    return changed
        raise PolicyConflict("busy", "others are changing the policy all the time; try again")

    async def rollback(self, number: int, *, by: str, comment: str | None, now: float) -> Changed:
        """Have all entries be as they were at version `number`; raises as `change` does."""
        require_comment(comment)
        comment = f"rollback to version {number}" + (f": {comment}" if comment else "")

        async def back(kept: KeptPolicy) -> Sequence[Edit]:
            return await self._back(kept, number)

        return await self._change(back, by, comment, now)

    async def _back(self, kept: KeptPolicy, number: int) -> Sequence[Edit]:
        """Return the edits that lead from what is kept to version `number`."""
        if number > kept.number:
            raise PolicyConflict(
                "absent", f"there is no version {number} of the policy; the last is {kept.number}"
            )
        then = await self._history.kept(number)
        old = {(entry.section, entry.name): entry for entry in then.entries}
        new = {(entry.section, entry.name): entry for entry in kept.entries}
        edits = [Edit(*key, None, new[key].etag) for key in new.keys() - old.keys()]
        for key, entry in old.items():
            there = new.get(key)
            if there is None or there.body != entry.body:
                expected = there.etag if there is not None else None
                edits.append(Edit(*key, body_of(entry), expected))
        return sorted(edits, key=key_of)

    async def _store(
        self, kept: KeptPolicy, edits: Sequence[Edit], by: str, comment: str | None, now: float
    ) -> Changed | None:
        policy = await asyncio.to_thread(self._load, kept, edits)
        made = _effective(kept, edits)
        if not made:
            return Changed(None, kept, policy)
        change = PolicyChange(now, by, comment, made)
        stored = await self._history.commit(change, kept.number)
        return None if stored is None else Changed(stored, await self._history.kept(), policy)

    def _load(self, kept: KeptPolicy, edits: Sequence[Edit]) -> Policy:
        problems = secrets_in(edits)
        if problems:
            raise PolicyError(problems)
        return self._judges.load(self._judges.files() + _documents_after(kept, edits))

    def _findings(
        self, kept: KeptPolicy, edits: Sequence[Edit], assumed: Mapping[str, frozenset[str]]
    ) -> tuple[Finding, ...]:
        try:
            files = self._judges.files()
        except PolicyError as error:  # what is wrong with a file is the answer
            return findings(error.problems, ())
        documents = files + _documents_after(kept, edits)
        return findings(secrets_in(edits) or self._problems(documents, assumed), documents)

    def _problems(
        self, documents: tuple[Document, ...], assumed: Mapping[str, frozenset[str]]
    ) -> tuple[Problem, ...]:
        if any(assumed.values()):
            return self._judges.find(documents, assumed)
        try:
            self._judges.load(documents)
        except PolicyError as error:
            return error.problems
        return ()

    def _require_expected(self, kept: KeptPolicy, edits: Sequence[Edit]) -> None:
        entries: dict[Key, PolicyEntry] = {
            (entry.section, entry.name): entry for entry in kept.entries
        }
        for edit in edits:
            entry = entries.get(key_of(edit))
            if entry is None and edit.expected is not None:
                raise self._absent(edit)
            if entry is not None and edit.expected is None:
                raise PolicyConflict("exists", f"{edit.place} is there already, as {entry.etag}")
            if entry is not None and edit.expected not in {ANY_STATE, entry.etag}:
                raise PolicyConflict(
                    "changed",
                    f"{edit.place} is not what it was: {entry.change.made_by} changed it in "
                    f"version {entry.change.number}; read it again",
                )

    def _absent(self, edit: Edit) -> PolicyConflict:
        in_file = merge(self._judges.files(), [])[edit.section].get(edit.name)
        if in_file is not None:
            return PolicyConflict(
                "in_file", f"{edit.place} is defined at {in_file.place}; change it in that file"
            )
        return PolicyConflict("absent", f"{edit.place} is not there")


def _documents_after(kept: KeptPolicy, edits: Iterable[Edit]) -> tuple[Document, ...]:
    bodies: dict[Key, Any] = {(entry.section, entry.name): body_of(entry) for entry in kept.entries}
    for edit in edits:
        if edit.body is None:
            bodies.pop(key_of(edit), None)
        else:
            bodies[key_of(edit)] = edit.body
    return tuple(
        entry_document(KEPT, section, name, body)
        for (section, name), body in sorted(bodies.items(), key=lambda item: item[0])
    )


def _effective(kept: KeptPolicy, edits: Iterable[Edit]) -> tuple[PolicyEdit, ...]:
    """Return the edits that make a difference."""
    entries: dict[Key, PolicyEntry] = {(entry.section, entry.name): entry for entry in kept.entries}
    made = []
    for edit in edits:
        before = entries.get(key_of(edit))
        body = None if edit.body is None else canonical(edit.body)
        if _sorted(body) != _sorted(before.body if before is not None else None):
            made.append(PolicyEdit(cast("Section", edit.section), edit.name, body))
    return tuple(made)


def _sorted(body: str | None) -> str | None:
    return None if body is None else json.dumps(json.loads(body), sort_keys=True)
