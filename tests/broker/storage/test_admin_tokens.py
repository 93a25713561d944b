from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest_asyncio

from broker.model import AdminToken
from broker.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.storage.base import AdminTokens

NOW = 1_750_000_000
TOKEN = AdminToken(
    "0123456789ab", "ci", b"\x01" * 32, ("policy:read", "policy:write"), NOW, "user:a", NOW + 60
)


@pytest_asyncio.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[AdminTokens]:
    store = SqliteStorage(tmp_path / "broker.db")
    yield store.admin_tokens
    await store.close()


async def test_a_token_is_found_by_its_id(tokens: AdminTokens) -> None:
    assert await tokens.add(TOKEN)
    assert await tokens.find(TOKEN.id) == TOKEN
    assert await tokens.find("ci") is None
    assert await tokens.all() == (TOKEN,)


async def test_one_name_has_one_good_token_at_a_time(tokens: AdminTokens) -> None:
    second = replace(TOKEN, id="b" * 12, created_at=NOW + 30, expires_at=NOW + 90)
    assert await tokens.add(TOKEN)
    assert not await tokens.add(second)
    assert await tokens.all() == (TOKEN,)
    later = replace(second, created_at=NOW + 60)
    assert await tokens.add(later)
    assert await tokens.revoke("ci", NOW + 61) == (replace(later, revoked_at=NOW + 61),)
    assert await tokens.add(replace(TOKEN, id="c" * 12, created_at=NOW + 62))


async def test_revoking_by_name_or_id_ends_what_is_good(tokens: AdminTokens) -> None:
    await tokens.add(TOKEN)
    await tokens.add(replace(TOKEN, id="b" * 12, name="other"))
    assert await tokens.revoke("unknown", NOW) == ()
    (ended,) = await tokens.revoke(TOKEN.id, NOW + 1)
    assert ended.revoked_at == NOW + 1
    assert not ended.is_good(NOW + 2)
    assert await tokens.revoke("ci", NOW + 2) == ()
    assert await tokens.find(TOKEN.id) == ended
    assert (await tokens.find("b" * 12) or ended).is_good(NOW + 2)


def test_the_digest_is_not_shown() -> None:
    assert "\\x01" not in repr(TOKEN)
