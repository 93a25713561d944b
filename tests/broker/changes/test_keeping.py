from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.changes.edits import ANY_STATE, Edit
from broker.changes.keeping import KeptPolicies
from broker.errors import InvalidRequest, PolicyConflict, PolicyError
from broker.storage.sqlite import SqliteStorage
from tests.fakes.admin_bench import ALL, BOT, READ, STRIPE

if TYPE_CHECKING:
    from broker.changes.keeping import Changed
    from broker.storage.base import KeptPolicy
    from tests.fakes.admin_bench import AdminBench

NOW = 2e9


@pytest.fixture
def kept(admin: AdminBench) -> KeptPolicies:
    """What the bench keeps, without the API."""
    return KeptPolicies(admin.storage.policies, admin.judges)


def edits(*items: tuple[str, str, Any], expected: str | None = None) -> list[Edit]:
    return [Edit(section, name, body, expected) for section, name, body in items]


async def make(kept: KeptPolicies, *made: Edit) -> Changed:
    return await kept.change(made, by="admin:x", comment="why", now=NOW)


async def test_a_change_is_whole_or_not_at_all(kept: KeptPolicies, admin: AdminBench) -> None:
    bad = edits(*ALL[:2], ("agents", "bot", {**BOT, "scopes": ["stripe.red"]}))
    with pytest.raises(PolicyError) as refusal:
        await make(kept, *bad)
    assert "did you mean 'stripe.read'?" in str(refusal.value)
    assert await admin.storage.policies.number() == 0
    changed = await make(kept, *edits(*ALL))
    assert changed.change is not None
    assert (changed.change.number, changed.change.made_by) == (1, "admin:x")
    assert len(changed.change.edits) == 3
    assert set(changed.policy.agents) == {"clerk", "bot"}


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (Edit("services", "stripe", STRIPE, None), "exists"),
        (Edit("services", "stripe", None, "1-0000000000000000"), "changed"),
        (Edit("services", "stripe", {**STRIPE, "description": "x"}, "0-x"), "changed"),
        (Edit("services", "stripes", None, ANY_STATE), "absent"),
        (Edit("services", "stripes", STRIPE, ANY_STATE), "absent"),
        (Edit("services", "orders", None, ANY_STATE), "in_file"),
        (Edit("services", "orders", STRIPE, ANY_STATE), "in_file"),
    ],
)
async def test_an_entry_must_be_what_the_change_supposes(
    kept: KeptPolicies, edit: Edit, code: str
) -> None:
    await make(kept, *edits(*ALL))
    with pytest.raises(PolicyConflict) as refusal:
        await make(kept, edit)
    assert refusal.value.code == code
    if code == "in_file":
        assert "own.yaml:2:3" in str(refusal.value)


async def test_an_entry_is_changed_as_it_is_known(kept: KeptPolicies) -> None:
    first = await make(kept, *edits(*ALL))
    etag = next(one.etag for one in first.kept.entries if one.section == "services")
    second = await make(kept, Edit("services", "stripe", {**STRIPE, "description": "x"}, etag))
    service = next(one for one in second.kept.entries if one.section == "services")
    assert service.change.number == 2
    assert service.etag != etag
    with pytest.raises(PolicyConflict, match="admin:x changed it in version 2"):
        await make(kept, Edit("services", "stripe", STRIPE, etag))


async def test_what_was_so_before_makes_no_version(kept: KeptPolicies) -> None:
    await make(kept, *edits(*ALL))
    again = await make(kept, Edit("scopes", "stripe.read", dict(reversed(READ.items())), "*"))
    assert again.change is None
    assert again.kept.number == 1
    number = {**READ, "risk": "high"}
    assert (await make(kept, Edit("scopes", "stripe.read", number, "*"))).kept.number == 2


async def test_what_others_need_is_not_removed(kept: KeptPolicies) -> None:
    await make(kept, *edits(*ALL))
    for section, name, told in (
        ("services", "stripe", "unknown service 'stripe'"),
        ("scopes", "stripe.read", "unknown scope 'stripe.read'"),
    ):
        with pytest.raises(PolicyError, match=told):
            await make(kept, Edit(section, name, None, ANY_STATE))
    removed = await make(kept, *(Edit(one[0], one[1], None, ANY_STATE) for one in ALL))
    assert removed.kept.entries == ()


async def test_a_name_in_a_file_cannot_be_taken(kept: KeptPolicies) -> None:
    with pytest.raises(PolicyError, match=r"services\.orders is defined twice: here and at .*own"):
        await make(kept, *edits(("services", "orders", STRIPE)))


async def test_changes_at_once_are_made_one_after_the_other(
    kept: KeptPolicies, admin: AdminBench
) -> None:
    other = SqliteStorage(admin.settings.home / "broker.db")
    beside = KeptPolicies(other.policies, admin.judges)
    bodies = [("services", f"s{number}", STRIPE) for number in range(6)]
    await asyncio.gather(
        *(make((kept, beside)[n % 2], *edits(body)) for n, body in enumerate(bodies))
    )
    versions = await admin.storage.policies.versions(None, 10)
    assert [one.number for one in versions] == [6, 5, 4, 3, 2, 1]
    assert len((await other.policies.kept()).entries) == 6
    await other.close()


async def test_of_two_who_create_one_entry_one_is_told(kept: KeptPolicies) -> None:
    made = await asyncio.gather(
        *(make(kept, *edits(("services", "s", {**STRIPE, "description": d}))) for d in "ab"),
        return_exceptions=True,
    )
    refused = [one for one in made if isinstance(one, PolicyConflict)]
    assert [one.code for one in refused] == ["exists"]


async def test_judging_changes_nothing_and_tells_the_field(
    kept: KeptPolicies, admin: AdminBench
) -> None:
    wrong = {**READ, "allow": ["GET /ok", "GOT /x"]}
    typo = {**READ, "servce": "x"}
    found = await kept.judge(edits(ALL[0], ("scopes", "a", wrong), ("scopes", "b", typo)), {})
    assert {(one.section, one.name, one.field) for one in found} == {
        ("scopes", "a", "allow[1]"),
        ("scopes", "b", "servce"),
    }
    assert await kept.judge(edits(*ALL), {}) == ()
    assert await kept.judge(edits(ALL[1]), {"services": frozenset({"stripe"})}) == ()
    assert await admin.storage.policies.number() == 0


async def test_a_secret_is_not_kept_nor_repeated(kept: KeptPolicies, admin: AdminBench) -> None:
    secret = "sk_live_" + "0123456789abcdefABCDEF"
    body = {**STRIPE, "credential": {"type": "bearer", "secret": secret}}
    (finding,) = await kept.judge(edits(("services", "stripe", body)), {})
    assert finding.field == "credential.secret"
    with pytest.raises(PolicyError) as refusal:
        await make(kept, *edits(("services", "stripe", body)))
    assert secret not in str(refusal.value) + finding.message
    assert await admin.storage.policies.number() == 0
    plain = {**STRIPE, "credential": {"type": "bearer", "secret": "correct horse"}}
    (finding,) = await kept.judge(edits(("services", "stripe", plain)), {})
    assert finding.field == "credential.secret"
    assert "expected a secret reference" in finding.message
    assert "horse" not in finding.message


async def test_rollback_makes_all_as_it_was(kept: KeptPolicies) -> None:
    first = await make(kept, *edits(*ALL))
    await make(kept, Edit("agents", "bot", None, "*"), Edit("scopes", "stripe.read", None, "*"))
    await make(kept, Edit("services", "other", STRIPE, None))
    back = await kept.rollback(1, by="user:a", comment="oops", now=NOW)
    assert back.change is not None
    assert back.change.comment == "rollback to version 1: oops"
    assert back.kept.number == 4

    def bodies(changed: Changed) -> list[tuple[str, str, str]]:
        return [(one.section, one.name, one.body) for one in changed.kept.entries]

    assert bodies(back) == bodies(first)
    assert (await kept.rollback(0, by="user:a", comment=None, now=NOW)).kept.entries == ()
    assert (await kept.rollback(0, by="user:a", comment=None, now=NOW)).change is None
    with pytest.raises(PolicyConflict, match="no version 9"):
        await kept.rollback(9, by="user:a", comment=None, now=NOW)


async def test_a_rollback_takes_as_long_a_comment_as_a_change(kept: KeptPolicies) -> None:
    await make(kept, *edits(*ALL))
    with pytest.raises(InvalidRequest, match="at most 500"):
        await kept.rollback(0, by="user:a", comment="y" * 501, now=NOW)
    with pytest.raises(InvalidRequest, match="one line"):
        await kept.rollback(0, by="user:a", comment="a\nb", now=NOW)
    back = await kept.rollback(0, by="user:a", comment="y" * 500, now=NOW)
    assert back.change is not None
    assert back.change.comment == f"rollback to version 0: {'y' * 500}"


async def test_a_rollback_removes_what_another_process_adds_meanwhile(
    kept: KeptPolicies, admin: AdminBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(kept, *edits(ALL[0]))
    await make(kept, *edits(*ALL[1:]))
    other = SqliteStorage(admin.settings.home / "broker.db")
    beside = KeptPolicies(other.policies, admin.judges)
    read = admin.storage.policies.kept

    async def read_and_be_overtaken(number: int | None = None) -> KeptPolicy:
        found = await read(number)
        if number == 1 and await other.policies.number() == 2:
            await make(beside, *edits(("services", "late", STRIPE)))
        return found

    monkeypatch.setattr(admin.storage.policies, "kept", read_and_be_overtaken)
    back = await kept.rollback(1, by="admin:y", comment=None, now=NOW)
    assert back.kept.number == 4
    assert [(one.section, one.name) for one in back.kept.entries] == [("services", "stripe")]
    assert "late" not in back.policy.services
    await other.close()


async def test_a_rollback_that_would_not_load_is_refused(
    kept: KeptPolicies, admin: AdminBench
) -> None:
    await make(kept, *edits(("services", "stripe", STRIPE)))
    await make(kept, Edit("services", "stripe", None, "*"))
    taken = "services: {stripe: {provider: http_api, base_url: 'https://x.example', "
    text = taken + "credential: {type: bearer, secret: 'env:X'}}}"
    (admin.settings.policies / "taken.yaml").write_text(text)
    with pytest.raises(PolicyError, match="defined twice"):
        await kept.rollback(1, by="user:a", comment=None, now=NOW)


async def test_nothing_is_judged_of_nonsense(kept: KeptPolicies) -> None:
    with pytest.raises(InvalidRequest, match="changed twice"):
        await kept.judge(edits(ALL[0], ALL[0]), {})
    with pytest.raises(InvalidRequest, match="one line"):
        await kept.change(edits(ALL[0]), by="a", comment="a\nb", now=NOW)
