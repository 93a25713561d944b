from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from broker.administrators import (
    LONGEST_LIFE,
    MOST_FAILURES,
    WINDOW,
    Administrators,
    new_token,
)
from broker.audit.redaction import redact_text
from broker.errors import AdminRefused, InvalidRequest
from broker.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BOTH = ("policy:read", "policy:write")


class Desk:
    """Administrators with a clock that a test sets."""

    def __init__(self, storage: SqliteStorage) -> None:
        self.tokens = storage.admin_tokens
        self.now = 1_750_000_000.0
        self.it = Administrators(self.tokens, clock=lambda: self.now, monotonic=lambda: self.now)

    async def token(self, name: str = "ci", lifetime: int = 600) -> bytes:
        token, kept = new_token(name, BOTH, lifetime, by="user:a", now=self.now)
        await self.tokens.add(kept)
        return token.reveal()

    async def refused(self, presented: bytes | None) -> AdminRefused:
        with pytest.raises(AdminRefused) as refusal:
            await self.it.authenticate(presented)
        return refusal.value


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    storage = SqliteStorage(tmp_path / "broker.db")
    yield Desk(storage)
    await storage.close()


async def test_a_token_says_who_it_is(desk: Desk) -> None:
    token = await desk.token()
    found = await desk.it.authenticate(token)
    assert (found.name, found.subject, found.permissions) == ("ci", "admin:ci", BOTH)
    assert found.token == token.split(b"_")[1].decode()


def test_a_token_can_be_recognised_and_is_kept_as_a_digest_alone() -> None:
    token, kept = new_token("ci", BOTH, 60, by="user:a", now=0)
    text = token.reveal().decode()
    assert re.fullmatch(r"atbadm_[0-9a-f]{12}_[0-9a-f]{64}", text)
    assert redact_text(f"used {text} here") == "used [redacted:admin-token] here"
    assert text not in repr(token) + repr(kept)
    assert len(kept.digest) == 32
    assert text.rpartition("_")[2].encode() not in kept.digest
    assert new_token("ci", BOTH, 60, by="user:a", now=0)[0] != token


@pytest.mark.parametrize(
    ("name", "permissions", "lifetime", "field"),
    [
        ("", BOTH, 60, "name"),
        ("a b", BOTH, 60, "name"),
        ("a\n", BOTH, 60, "name"),
        ("ci", (), 60, "can"),
        ("ci", ("policy:write", ""), 60, "can"),
        ("ci", ("policy:admin",), 60, "can"),
        ("ci", BOTH, 0, "expires"),
        ("ci", BOTH, -1, "expires"),
        ("ci", BOTH, LONGEST_LIFE + 1, "expires"),
    ],
)
def test_what_cannot_be_granted(
    name: str, permissions: tuple[str, ...], lifetime: int, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        new_token(name, permissions, lifetime, by="user:a", now=0)
    assert refusal.value.field == field


async def test_whatever_is_wrong_is_answered_alike_and_told_the_trail(desk: Desk) -> None:
    token = await desk.token()
    other = await desk.token("old", lifetime=10)
    revoked = await desk.token("gone")
    await desk.tokens.revoke("gone", int(desk.now))
    desk.now += 11
    cases = {
        "no token": None,
        "not an administrator's token": b"eyJhbGciOiJFUzI1NiJ9.e30.x",
        "no such token": b"atbadm_" + b"0" * 12 + b"_" + b"0" * 64,
        f"wrong secret for token {token[7:19].decode()} (ci)": token[:-8] + b"00000000",
        f"token {other[7:19].decode()} (old) is expired": other,
        f"token {revoked[7:19].decode()} (gone) is revoked": revoked,
    }
    refusals = {cause: await desk.refused(presented) for cause, presented in cases.items()}
    assert {cause: one.detail for cause, one in refusals.items()} == {one: one for one in cases}
    assert {(one.code, str(one)) for one in refusals.values()} == {
        ("unauthorized", str(refusals["no token"]))
    }


@pytest.mark.parametrize(
    "change",
    [
        bytes.upper,
        lambda token: token + b"0",
        lambda token: b" " + token,
        lambda token: token[:-1],
        lambda token: token + b"\n",
        lambda token: token.replace(b"_", b"-"),
    ],
)
async def test_variations_of_a_good_token_are_refused(desk: Desk, change: object) -> None:
    assert callable(change)
    assert (await desk.refused(change(await desk.token()))).code == "unauthorized"


async def test_failures_are_counted_together_and_a_good_token_is_let_in(desk: Desk) -> None:
    token = await desk.token()
    for number in range(MOST_FAILURES):
        guess = b"atbadm_%012x_%064x" % (number, number)
        assert (await desk.refused(guess)).code == "unauthorized"
    assert (await desk.refused(token[:-8] + b"00000000")).code == "too_many_failures"
    assert (await desk.refused(None)).code == "too_many_failures"
    assert (await desk.it.authenticate(token)).name == "ci"
    desk.now += WINDOW
    assert (await desk.refused(None)).code == "unauthorized"


async def test_a_permission_that_is_missing_is_named(desk: Desk) -> None:
    token, kept = new_token("reader", ["policy:read"], 60, by="user:a", now=desk.now)
    await desk.tokens.add(kept)
    reader = await desk.it.authenticate(token.reveal())
    reader.require("policy:read")
    with pytest.raises(AdminRefused, match="--can policy:write") as refusal:
        reader.require("policy:write")
    assert refusal.value.code == "forbidden"
