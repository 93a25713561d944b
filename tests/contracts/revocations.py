"""What every storage backend must do with revocations; subclass it, with an `open_store`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.model import Grant, Lease
from broker.revoked import Revoked, revocation
from broker.storage.base import ReplayClaim, Use

if TYPE_CHECKING:
    from broker.model import Revocation, RevocationKind
    from broker.storage.base import Ended, Storage
    from tests.contracts.storage import OpenStore

NOW = 1_750_000_000
CLAIM = ReplayClaim("https://issuer.example", "jti-1", NOW + 330.0)


def grant(jti: str, agent: str = "bot", **changes: Any) -> Grant:
    """A grant of `agent` that holds a.read and a.write, issued a minute ago."""
    return replace(
        Grant(
            jti=jti,
            agent=agent,
            issuer="local",
            subject=agent,
            scopes=("a.read", "a.write"),
            issued_at=NOW - 60,
            expires_at=NOW + 900,
            policy_version="v",
            client_id=agent,
        ),
        **changes,
    )


def child(jti: str, parent: Grant, **changes: Any) -> Grant:
    """A grant that was narrowed from another."""
    return replace(parent, jti=jti, ancestors=parent.line, **changes)


def order(kind: RevocationKind, value: str = "", now: float = NOW) -> Revocation:
    return revocation(kind, value, now=now, by="user:test", reason="lost laptop")


def lease(name: str, of: Grant) -> Lease:
    return Lease(
        id=name,
        grant=of.jti,
        ancestors=of.ancestors,
        agent=of.agent,
        service="db",
        scope="a.read",
        provider="vault_dynamic",
        config="{}",
        state="intent",
        created_at=NOW,
        grant_ends_at=NOW + 900,
        expires_at=NOW + 900,
        due_at=NOW,
    )


ROOT = grant("root")
CHILD = child("child", ROOT, scopes=("a.read",))
GRANDCHILD = child("grandchild", CHILD, actor={"sub": "helper"}, client_id="helper")
GREAT = child(
    "great", GRANDCHILD, actor={"sub": "third", "act": {"sub": "helper"}}, client_id="third"
)
OTHER = grant("other", "other", scopes=("a.read", "b"))
EVERYBODY = (ROOT, CHILD, GRANDCHILD, GREAT, OTHER)


def jtis(ended: Ended) -> set[str]:
    return {one.jti for one in ended.grants}


async def save_all(store: Storage) -> None:
    for one in EVERYBODY:
        assert await store.save_grant(one) == "saved"


class RevocationContract:
    async def test_revocations_come_back_in_order_and_once(self, store: Storage) -> None:
        assert await store.revocations.since(0) == ()
        orders = [order("grant", "x"), order("agent", "a"), order("scope", "s"), order("all")]
        stored = [(await store.revocations.add(one)).revocation for one in orders]
        assert [replace(one, number=0) for one in stored] == orders
        numbers = [one.number for one in stored]
        assert numbers == sorted(set(numbers))
        assert await store.revocations.since(0) == tuple(stored)
        assert await store.revocations.since(numbers[1]) == tuple(stored[2:])
        assert await store.revocations.since(numbers[-1]) == ()

    async def test_what_one_worker_revokes_another_sees(
        self, store: Storage, open_store: OpenStore
    ) -> None:
        other = open_store()
        ended = await store.revocations.add(order("grant", "x"))
        assert await other.revocations.since(0) == (ended.revocation,)

    @pytest.mark.parametrize(
        ("kind", "value", "expected"),
        [
            ("grant", "root", {"root", "child", "grandchild", "great"}),
            ("grant", "grandchild", {"grandchild", "great"}),
            ("grant", "great", {"great"}),
            ("grant", "roo", set()),
            ("agent", "bot", {"root", "child", "grandchild", "great"}),
            ("agent", "helper", {"grandchild", "great"}),
            ("agent", "third", {"great"}),
            ("agent", "other", {"other"}),
            ("scope", "a.write", {"root", "child", "grandchild", "great"}),
            ("scope", "a.read", {"root", "child", "grandchild", "great", "other"}),
            ("scope", "a", set()),
            ("scope", "b", {"other"}),
            ("all", "", {"root", "child", "grandchild", "great", "other"}),
        ],
    )
    async def test_what_each_kind_ends(
        self, store: Storage, kind: RevocationKind, value: str, expected: set[str]
    ) -> None:
        await save_all(store)
        ended = await store.revocations.add(order(kind, value))
        assert jtis(ended) == expected
        known = Revoked(await store.revocations.since(0))
        assert {one.jti for one in EVERYBODY if known.covers(one)} == expected
        left = {one.grant.jti for one in await store.sessions(NOW)}
        assert left == {one.jti for one in EVERYBODY} - expected

    async def test_what_has_ended_is_not_ended_again(self, store: Storage) -> None:
        await save_all(store)
        await store.revocations.add(order("grant", "child"))
        assert jtis(await store.revocations.add(order("agent", "bot"))) == {"root"}
        assert jtis(await store.revocations.add(order("all"))) == {"other"}
        assert jtis(await store.revocations.add(order("all"))) == set()

    async def test_what_has_expired_is_not_ended(self, store: Storage) -> None:
        await store.save_grant(grant("over", expires_at=NOW))
        assert jtis(await store.revocations.add(order("all"))) == set()

    @pytest.mark.parametrize(
        ("kind", "value"), [("agent", "bot"), ("scope", "a.write"), ("all", "")]
    )
    async def test_grants_issued_later_are_good(
        self, store: Storage, kind: RevocationKind, value: str
    ) -> None:
        await store.revocations.add(order(kind, value))
        assert await store.save_grant(grant("later", issued_at=NOW + 1)) == "saved"
        assert [one.grant.jti for one in await store.sessions(NOW)] == ["later"]

    @pytest.mark.parametrize(
        ("kind", "value"), [("agent", "bot"), ("scope", "a.write"), ("all", "")]
    )
    async def test_r5_a_clock_that_is_behind_ends_what_is_there(
        self, store: Storage, kind: RevocationKind, value: str
    ) -> None:
        await save_all(store)
        ended = await store.revocations.add(order(kind, value, now=NOW - 3600))
        assert "root" in jtis(ended)
        known = Revoked(await store.revocations.since(0))
        assert all(map(known.covers, ended.grants))

    @pytest.mark.parametrize(
        ("kind", "value"), [("grant", "late"), ("agent", "bot"), ("scope", "a.write"), ("all", "")]
    )
    async def test_r3_what_was_being_issued_is_not_stored(
        self, store: Storage, kind: RevocationKind, value: str
    ) -> None:
        await store.revocations.add(order(kind, value))
        late = grant("late", issued_at=NOW)
        assert await store.save_grant(late, CLAIM) == "revoked"
        assert await store.grant("late") is None
        unconcerned = grant("unconcerned", "other", issued_at=NOW + 1, scopes=("b",))
        assert await store.save_grant(unconcerned, CLAIM) == "saved"  # it was not spent

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("grant", "root"),
            ("grant", "child"),
            ("agent", "bot"),
            ("scope", "a.write"),
            ("all", ""),
        ],
    )
    async def test_r3_no_child_of_a_revoked_grant_is_stored(
        self, store: Storage, kind: RevocationKind, value: str
    ) -> None:
        await store.save_grant(ROOT)
        await store.save_grant(CHILD)
        await store.revocations.add(order(kind, value))
        late = child("late", CHILD, issued_at=NOW + 60)
        assert await store.save_grant(late) == "revoked"

    async def test_r3_issuing_and_revoking_at_once_leaves_nothing_good(
        self, store: Storage, open_store: OpenStore
    ) -> None:
        other = open_store()
        await store.save_grant(ROOT)
        children = [child(f"c{n}", ROOT, issued_at=NOW) for n in range(60)]
        saves = [(store, other)[n % 2].save_grant(one) for n, one in enumerate(children)]
        saves.insert(30, other.revocations.add(order("grant", "root")))  # type: ignore[arg-type]
        await asyncio.gather(*saves)
        known = Revoked(await store.revocations.since(0))
        assert all(map(known.covers, children))
        assert await store.sessions(NOW) == ()
        assert await store.save_grant(child("after", ROOT)) == "revoked"

    async def test_leases_end_with_their_grants(self, store: Storage) -> None:
        await save_all(store)
        for one in (ROOT, GREAT, OTHER):
            await store.leases.open(lease(f"lease-{one.jti}", one), "me", NOW + 45, 10)
        ended = await store.revocations.add(order("grant", "child"))
        assert ended.leases == 1
        states = {one.id: one.state for one in await store.leases.leases()}
        assert states == {
            "lease-root": "intent",
            "lease-great": "revoking",
            "lease-other": "intent",
        }
        assert (await store.revocations.add(order("all"))).leases == 2

    @pytest.mark.parametrize(
        ("kind", "value"), [("grant", "root"), ("agent", "bot"), ("scope", "a.write"), ("all", "")]
    )
    async def test_r3_what_is_minted_for_a_revoked_grant_is_to_end(
        self, store: Storage, kind: RevocationKind, value: str
    ) -> None:
        await store.save_grant(ROOT)
        await store.save_grant(CHILD)
        await store.revocations.add(order(kind, value))
        await store.leases.open(lease("late", CHILD), "me", NOW + 45, 10)
        assert await store.leases.minted("late", b"handle", NOW + 900, NOW) == "revoking"

    async def test_sessions_tell_their_use(self, store: Storage, open_store: OpenStore) -> None:
        await store.save_grant(ROOT)
        await store.save_grant(OTHER)
        await store.note_use({"root": Use(3, NOW + 5.5), "unknown": Use(1, NOW)})
        await open_store().note_use({"root": Use(2, NOW + 4.0)})
        sessions = {one.grant.jti: one for one in await store.sessions(NOW)}
        assert sessions["root"].grant == ROOT
        assert (sessions["root"].requests, sessions["root"].used_at) == (5, NOW + 5.5)
        assert (sessions["other"].requests, sessions["other"].used_at) == (0, None)

    async def test_a_claim_can_be_spent_by_itself(self, store: Storage) -> None:
        assert await store.spend(CLAIM)
        assert not await store.spend(CLAIM)
        assert await store.save_grant(ROOT, CLAIM) == "spent"

    async def test_a_purge_keeps_what_may_still_end_a_grant(self, store: Storage) -> None:
        await store.save_grant(ROOT)
        await store.revocations.add(order("grant", "root"))
        await store.revocations.add(order("all"))
        assert await store.purge(ROOT.expires_at + 3600.0) == 0
        assert len(await store.revocations.since(0)) == 2
        await store.purge(NOW + 30 * 86400.0)
        assert await store.revocations.since(0) == ()

    async def test_a_number_is_never_given_twice(self, store: Storage) -> None:
        first = await store.revocations.add(order("all"))
        await store.purge(NOW + 30 * 86400.0)
        second = await store.revocations.add(order("all"))
        assert second.revocation.number > first.revocation.number

    @given(
        grants=st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.sets(st.sampled_from("xyz"), min_size=1),
                st.integers(-2, 2),
                st.integers(0, 5),
            ),
            min_size=1,
            max_size=8,
        ),
        kind=st.sampled_from(["grant", "agent", "scope", "all"]),
        pick=st.integers(0, 7),
    )
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_memory_and_store_agree_on_every_family(
        self,
        store: Storage,
        grants: list[tuple[str, set[str], int, int]],
        kind: RevocationKind,
        pick: int,
    ) -> None:
        """Each grant has one before it as parent, or none; what is revoked ends its family."""
        prefix = f"{id(grants):x}-{pick}-{kind}-"
        made: list[Grant] = []
        for number, (agent, scopes, age, parent) in enumerate(grants):
            name = f"{prefix}{number}-{len(await store.sessions(0))}"
            fresh = grant(name, prefix + agent, scopes=tuple(sorted(scopes)), issued_at=NOW + age)
            one = child(name, made[parent], issued_at=NOW + age) if parent < len(made) else fresh
            if await store.save_grant(one) == "saved":
                made.append(one)
        if not made:
            return
        target = made[pick % len(made)]
        value = {"grant": target.jti, "agent": target.agent, "scope": target.scopes[0], "all": ""}
        before = {one.grant.jti for one in await store.sessions(NOW)}
        ended = await store.revocations.add(order(kind, value[kind]))
        known = Revoked(await store.revocations.since(0))
        assert jtis(ended) == before - {one.grant.jti for one in await store.sessions(NOW)}
        for one in made:
            has_ended = one.jti not in before or one.jti in jtis(ended)
            assert known.covers(one) == has_ended
            assert (await store.save_grant(child(f"{one.jti}-x", one, issued_at=NOW + 9))) == (
                "revoked" if has_ended else "saved"
            )
