"""What every storage backend must do with kept policy; subclass it, with an `open_store`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.errors import StorageError
from broker.model import PolicyChange, PolicyEdit

if TYPE_CHECKING:
    from broker.model import Section
    from broker.storage.base import Storage
    from tests.contracts.storage import OpenStore

NOW = 1_750_000_000.25


def edit(name: str, body: object, section: Section = "scopes") -> PolicyEdit:
    return PolicyEdit(section, name, None if body is None else json.dumps(body))


def change(*edits: PolicyEdit, comment: str | None = "why") -> PolicyChange:
    return PolicyChange(NOW, "admin:terraform", comment, edits)


async def commit(store: Storage, *edits: PolicyEdit) -> PolicyChange:
    """Store a change that nobody else is in the way of."""
    made = await store.policies.commit(change(*edits), await store.policies.number())
    assert made is not None
    return made


class PolicyHistoryContract:
    """The contract."""

    async def test_nothing_is_kept_at_first(self, store: Storage) -> None:
        assert await store.policies.number() == 0
        kept = await store.policies.kept()
        assert (kept.number, kept.entries) == (0, ())
        assert await store.policies.versions(None, 10) == ()

    async def test_a_change_is_numbered_chained_and_seen_by_others(
        self, open_store: OpenStore
    ) -> None:
        store, other = open_store(), open_store()
        first = await commit(store, edit("a", {"x": 1}), edit("s", {"y": 1}, "services"))
        second = await commit(other, edit("a", {"x": 2}))
        assert (first.number, first.previous, second.number) == (1, "", 2)
        assert second.previous == first.digest != second.digest
        assert len(first.digest) == 64
        kept = await store.policies.kept()
        assert kept.number == 2
        assert [(one.section, one.name, json.loads(one.body)) for one in kept.entries] == [
            ("scopes", "a", {"x": 2}),
            ("services", "s", {"y": 1}),
        ]
        changed, same = kept.entries
        assert changed.change == replace(second, edits=())
        assert (changed.change.made_by, changed.change.comment) == ("admin:terraform", "why")
        assert same.etag == f"1-{first.digest[:16]}"
        assert changed.etag == f"2-{second.digest[:16]}"

    async def test_a_whole_number_of_seconds_is_a_time_too(self, store: Storage) -> None:
        made = await store.policies.commit(replace(change(edit("a", {})), made_at=1_750_000_000), 0)
        assert await store.policies.versions(None, 10) == (made,)

    async def test_versions_tell_all_that_was_ever_changed(self, store: Storage) -> None:
        made = [await commit(store, edit("a", {"x": number})) for number in range(3)]
        made.append(await commit(store, edit("a", None)))
        assert await store.policies.versions(None, 10) == tuple(reversed(made))
        assert await store.policies.versions(3, 1) == (made[1],)
        assert (await store.policies.kept()).entries == ()

    async def test_entries_as_of_an_older_version(self, store: Storage) -> None:
        await commit(store, edit("a", {"x": 1}))
        await commit(store, edit("b", {"x": 2}))
        await commit(store, edit("a", None), edit("b", {"x": 3}))
        first = await store.policies.kept(1)
        assert [(one.name, json.loads(one.body)) for one in first.entries] == [("a", {"x": 1})]
        assert (await store.policies.kept(0)).entries == ()
        second = await store.policies.kept(2)
        assert [one.change.number for one in second.entries] == [1, 2]
        assert await store.policies.kept(3) == await store.policies.kept()
        with pytest.raises(StorageError, match="no version 4"):
            await store.policies.kept(4)

    async def test_of_changes_to_the_same_version_one_is_stored(
        self, open_store: OpenStore
    ) -> None:
        stores = [open_store() for _ in range(4)]
        made = await asyncio.gather(
            *(one.policies.commit(change(edit("a", {"x": n})), 0) for n, one in enumerate(stores))
        )
        stored = [one for one in made if one is not None]
        assert len(stored) == 1
        assert await stores[0].policies.versions(None, 10) == tuple(stored)
