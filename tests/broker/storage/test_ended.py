from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.storage import grants
from broker.storage.ended import REVOCATION, all_revoked, is_ended, revocations
from broker.storage.schema import open_database
from tests.contracts.revocations import CHILD, NOW, OTHER, ROOT, child, grant, order

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from broker.model import Revocation


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "broker.db")) as connection:
        yield connection


def _put(connection: sqlite3.Connection, one: Revocation) -> None:
    connection.execute(
        f"INSERT INTO revocations ({REVOCATION}) VALUES (?, ?, ?, ?, ?, ?, NULL)",  # noqa: S608
        (one.kind, one.value, one.revoked_at, one.until, one.by, one.reason),
    )


def test_without_revocations_nothing_has_ended(connection: sqlite3.Connection) -> None:
    grants.insert(connection, ROOT)
    assert not is_ended(connection, ROOT.line)
    assert not is_ended(connection, CHILD.line, CHILD)
    assert not is_ended(connection, ("unknown",))


def test_a_jti_that_is_not_stored_can_have_ended(connection: sqlite3.Connection) -> None:
    _put(connection, order("grant", "unknown"))
    assert is_ended(connection, ("unknown",))
    assert is_ended(connection, ("child", "unknown"))


def test_a_child_ends_with_what_its_parent_holds(connection: sqlite3.Connection) -> None:
    grants.insert(connection, ROOT)
    _put(connection, order("scope", "a.write"))
    late = child("late", ROOT, scopes=("a.read",), issued_at=NOW + 60)
    assert is_ended(connection, late.line, late)
    assert is_ended(connection, late.line)


@pytest.mark.parametrize(("issued_at", "ended"), [(NOW, True), (NOW + 1, False)])
def test_the_moment_counts(connection: sqlite3.Connection, issued_at: int, *, ended: bool) -> None:
    _put(connection, order("agent", "bot"))
    one = grant("one", issued_at=issued_at)
    assert is_ended(connection, one.line, one) == ended
    assert not is_ended(connection, OTHER.line, OTHER)


def test_a_name_is_no_pattern(connection: sqlite3.Connection) -> None:
    _put(connection, order("grant", "%"))
    _put(connection, order("agent", "*"))
    assert not is_ended(connection, ROOT.line, ROOT)


def test_all_that_there_is(connection: sqlite3.Connection) -> None:
    _put(connection, order("grant", "root"))
    _put(connection, order("agent", "other"))
    assert [one.value for one in revocations(connection, "kind = 'grant'")] == ["root"]
    revoked = all_revoked(connection)
    assert revoked.covers(CHILD)
    assert revoked.covers(OTHER)
    assert not revoked.covers(grant("free"))
