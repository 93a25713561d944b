from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.storage import grants
from broker.storage.schema import open_database
from tests.contracts.revocations import EVERYBODY, NOW, ROOT, grant

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from broker.model import Grant


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "broker.db")) as connection:
        for one in EVERYBODY:
            grants.insert(connection, one)
        yield connection


def _names(found: Iterable[Grant]) -> list[str]:
    return sorted(one.jti for one in found)


def test_a_grant_is_found_whole(connection: sqlite3.Connection) -> None:
    for one in EVERYBODY:
        assert grants.find(connection, one.jti) == one
    assert grants.find(connection, "roo") is None


def test_a_line(connection: sqlite3.Connection) -> None:
    found = grants.live_of_line(connection, NOW, "child")
    assert _names(found) == ["child", "grandchild", "great"]
    assert _names(grants.live_of_line(connection, NOW, "chil")) == []


def test_no_grant_of_an_agent_or_scope_is_missed(connection: sqlite3.Connection) -> None:
    bot = _names(one for one in EVERYBODY if "bot" in one.parties)
    assert set(bot) <= set(_names(grants.live_of_agent(connection, NOW, "bot")))
    assert "great" in _names(grants.live_of_agent(connection, NOW, "helper"))
    assert set(bot) <= set(_names(grants.live_of_scope(connection, NOW, "a.write")))
    assert "other" not in _names(grants.live_of_scope(connection, NOW, "a.write"))


def test_what_has_expired_is_left_out(connection: sqlite3.Connection) -> None:
    grants.insert(connection, grant("brief", expires_at=NOW + 1))
    assert "brief" in _names(grants.live(connection, NOW))
    assert "brief" not in _names(grants.live(connection, NOW + 1))
    assert all(one.grant.jti != "brief" for one in grants.sessions(connection, NOW + 1))


def test_use_adds_up_and_its_time_never_goes_back(connection: sqlite3.Connection) -> None:
    grants.count_use(connection, ROOT.jti, 2, NOW + 5.0)
    grants.count_use(connection, ROOT.jti, 1, NOW + 3.0)
    grants.count_use(connection, "unknown", 1, NOW)
    (session,) = [one for one in grants.sessions(connection, NOW) if one.grant == ROOT]
    assert (session.requests, session.used_at) == (3, NOW + 5.0)
