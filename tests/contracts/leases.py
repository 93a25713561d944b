"""What every store of leases must do; subclass it and give it an `open_store` fixture."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pytest

from broker.errors import StorageError
from broker.model import Lease

if TYPE_CHECKING:
    from broker.storage.base import LeaseStore, Storage

NOW = 1_750_000_000.0
LEASE = Lease(
    id="lease-1",
    grant="grant-1",
    ancestors=("grant-root", "grant-0"),
    agent="release-bot",
    service="postgres",
    scope="db.read",
    provider="vault_dynamic",
    config='{"mount":"database"}',
    state="intent",
    created_at=NOW,
    grant_ends_at=NOW + 900,
    expires_at=NOW + 900,
    due_at=NOW,
)
MINTER, REAPER = "minter", "reaper"
HANDLE = b"\x00sealed\xff"
SOON = NOW + 45
LATE = NOW + 46


class OpenStore(Protocol):
    """Open the same store once more, as another worker would."""

    def __call__(self) -> Storage: ...


class LeaseStoreContract:
    """The contract. `open_store()` opens the store of the test; the fixture closes them all."""

    @pytest.fixture
    def store(self, open_store: OpenStore) -> LeaseStore:
        return open_store().leases

    @pytest.fixture
    def other(self, open_store: OpenStore) -> LeaseStore:
        return open_store().leases

    async def test_an_intent_comes_back_as_it_was_stored(
        self, store: LeaseStore, other: LeaseStore
    ) -> None:
        assert await store.open(LEASE, MINTER, SOON, 5)
        assert await other.lease("lease-1") == LEASE
        assert await other.leases() == (LEASE,)
        assert await other.counts() == {"intent": 1}
        assert await store.lease("nobody") is None

    async def test_a_lease_is_opened_once(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        with pytest.raises(StorageError):
            await store.open(LEASE, MINTER, SOON, 5)

    async def test_a_grant_has_so_many_leases_and_no_more(
        self, store: LeaseStore, other: LeaseStore
    ) -> None:
        opened = await asyncio.gather(
            *(
                (store, other)[n % 2].open(replace(LEASE, id=f"l{n}"), MINTER, SOON, 3)
                for n in range(20)
            )
        )
        assert sum(opened) == 3
        assert len(await store.leases()) == 3
        assert await store.open(replace(LEASE, id="x", grant="grant-2"), MINTER, SOON, 3)

    async def test_leases_that_are_over_do_not_count_against_a_grant(
        self, store: LeaseStore
    ) -> None:
        await store.open(LEASE, MINTER, SOON, 1)
        await _close(store, "lease-1")
        assert await store.open(replace(LEASE, id="lease-2"), MINTER, SOON, 1)

    async def test_the_way_of_a_lease_from_intent_to_its_end(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        assert await store.reserve("lease-1", MINTER, b"first")
        assert await store.minted("lease-1", HANDLE, NOW + 600, NOW + 1) == "minted"
        assert await store.delivered("lease-1", NOW + 600)
        assert await store.claim(REAPER, NOW + 599, NOW + 629, 10) == ()
        (due,) = await store.claim(REAPER, NOW + 600, NOW + 630, 10)
        assert due == replace(
            LEASE, state="delivered", handle=HANDLE, expires_at=NOW + 600, due_at=NOW + 600
        )
        assert await store.close(due, REAPER, "expired", NOW + 601)
        assert await store.leases() == ()
        (over,) = await store.leases(over=True)
        assert (over.state, over.ended_at, over.due_at) == ("expired", NOW + 601, None)
        assert not await store.end("lease-1", "anybody", NOW + 602, None)
        assert not await store.delivered("lease-1", NOW + 700)
        assert await store.counts() == {}

    async def test_what_a_gateway_uses_is_its_own_while_it_is_held(
        self, store: LeaseStore, other: LeaseStore
    ) -> None:
        await _use(store, NOW + 40)
        used = await other.lease("lease-1")
        assert used is not None
        assert (used.state, used.delivery, used.due_at) == ("delivered", "proxy", NOW + 40)
        assert (used.standing, await other.counts()) == ("used", {"used": 1})
        assert await other.claim(REAPER, NOW + 39, LATE, 10) == ()
        assert await store.hold(["lease-1", "lease-2"], MINTER, NOW + 80) == {"lease-1"}
        assert await store.hold(["lease-1"], "somebody", NOW + 800) == frozenset()
        assert await store.hold([], MINTER, NOW + 800) == frozenset()
        assert await other.claim(REAPER, NOW + 79, LATE, 10) == ()
        (lost,) = await other.claim(REAPER, NOW + 80, NOW + 100, 10)
        assert (lost.state, lost.handle) == ("delivered", HANDLE)
        assert await store.hold(["lease-1"], MINTER, NOW + 120) == frozenset()
        assert not await store.use("lease-1", MINTER, NOW + 600, NOW + 120)

    async def test_it_is_held_no_longer_than_it_and_its_grant_live(self, store: LeaseStore) -> None:
        await _use(store, NOW + 40)
        assert await store.hold(["lease-1"], MINTER, NOW + 5000)
        assert await store.claim(REAPER, NOW + 599, LATE, 10) == ()
        assert await store.use("lease-1", MINTER, NOW + 6000, NOW + 610)  # renewed
        assert await store.claim(REAPER, NOW + 609, LATE, 10) == ()
        assert await store.hold(["lease-1"], MINTER, NOW + 5000)
        assert await store.claim(REAPER, NOW + 899, LATE, 10) == ()
        (over,) = await store.claim(REAPER, NOW + 900, NOW + 901, 10)
        assert over.expires_at == NOW + 6000

    async def test_what_is_to_end_is_used_no_more(self, store: LeaseStore) -> None:
        await store.open(replace(LEASE, delivery="proxy"), MINTER, SOON, 5)
        assert not await store.use("lease-1", MINTER, NOW + 600, NOW + 40)  # not minted yet
        await store.minted("lease-1", HANDLE, NOW + 600, NOW + 1)
        await store.end_grant("grant-1", NOW + 1)
        assert not await store.use("lease-1", MINTER, NOW + 600, NOW + 40)

    async def test_an_end_asked_for_while_a_gateway_uses_it_waits_for_nothing(
        self, store: LeaseStore
    ) -> None:
        await _use(store, NOW + 40)
        assert await store.end_grant("grant-0", NOW + 1) == 1
        assert await store.hold(["lease-1"], MINTER, NOW + 80) == frozenset()
        (due,) = await store.claim(REAPER, NOW + 1, LATE, 10)
        assert due.state == "revoking"

    async def test_what_agents_have_and_gateways_use_is_counted_apart(
        self, store: LeaseStore
    ) -> None:
        await _use(store, NOW + 40)
        assert not await store.open(replace(LEASE, id="x", delivery="proxy"), MINTER, SOON, 1)
        assert await store.open(replace(LEASE, id="x"), MINTER, SOON, 1)

    async def test_what_is_being_minted_is_nobody_elses(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        assert await store.claim(REAPER, SOON - 1, LATE, 10) == ()
        assert not await store.reserve("lease-1", "somebody", HANDLE)
        (orphan,) = await store.claim(REAPER, SOON, LATE, 10)
        assert (orphan.state, orphan.handle) == ("intent", None)

    async def test_who_has_lost_a_claim_reserves_nothing(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        await store.claim(REAPER, LATE, LATE + 30, 10)
        assert not await store.reserve("lease-1", MINTER, HANDLE)

    async def test_of_many_one_claims(self, store: LeaseStore, other: LeaseStore) -> None:
        for n in range(30):
            await store.open(replace(LEASE, id=f"l{n}", due_at=NOW - n), MINTER, NOW, 100)
        claims = await asyncio.gather(
            *((store, other)[n % 2].claim(f"r{n}", NOW, LATE, 7) for n in range(10))
        )
        claimed = [lease.id for claim in claims for lease in claim]
        assert sorted(claimed) == sorted(f"l{n}" for n in range(30))
        assert all(len(claim) <= 7 for claim in claims)
        first = next(claim for claim in claims if claim)
        assert [lease.due_at for lease in first] == sorted(lease.due_at or 0 for lease in first)

    async def test_the_longest_due_comes_first(self, store: LeaseStore) -> None:
        for n in range(5):
            await store.open(replace(LEASE, id=f"l{n}", due_at=NOW - n), MINTER, NOW, 100)
        assert [lease.id for lease in await store.claim(REAPER, NOW, LATE, 2)] == ["l4", "l3"]

    async def test_r6_what_has_failed_keeps_nothing_waiting_that_has_not_been_tried(
        self, store: LeaseStore
    ) -> None:
        await store.open(replace(LEASE, id="failed"), MINTER, NOW, 100)
        (failed,) = await store.claim(REAPER, NOW, NOW + 1, 10)
        assert await store.retry(failed, REAPER, NOW + 2, "the upstream hangs", ending=True)
        for n in (3, 4):
            await store.open(replace(LEASE, id=f"l{n}", due_at=NOW + n), MINTER, NOW, 100)
        order = [(await store.claim(REAPER, NOW + 9, LATE, 1))[0].id for _ in range(3)]
        assert order == ["l3", "l4", "failed"]

    async def test_an_end_asked_for_while_minting_wins(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        assert await store.end_grant("grant-1", NOW + 1) == 1
        assert not await store.reserve("lease-1", MINTER, b"first")
        assert await store.minted("lease-1", HANDLE, NOW + 600, NOW + 2) == "revoking"
        assert not await store.delivered("lease-1", NOW + 600)
        # The minter still holds it, and lets go of it now.
        assert await store.claim(REAPER, NOW + 3, LATE, 10) == ()
        assert await store.end("lease-1", MINTER, NOW + 3, "revoked meanwhile")
        (due,) = await store.claim(REAPER, NOW + 3, LATE, 10)
        assert (due.state, due.handle, due.problem) == ("revoking", HANDLE, "revoked meanwhile")

    async def test_an_end_asked_for_before_delivery_wins(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        await store.minted("lease-1", HANDLE, NOW + 600, NOW + 1)
        await store.end_grant("grant-1", NOW + 1)
        assert not await store.delivered("lease-1", NOW + 600)

    async def test_an_end_asked_for_while_renewing_wins(self, store: LeaseStore) -> None:
        await _deliver(store)
        await store.claim(REAPER, NOW + 400, NOW + 430, 10)
        await store.end_grant("grant-1", NOW + 401)
        assert not await store.renewed("lease-1", REAPER, NOW + 800, NOW + 700, None)
        (due,) = await store.claim("another", NOW + 402, NOW + 430, 10)
        assert (due.state, due.expires_at) == ("revoking", NOW + 800)

    async def test_a_renewal_moves_the_end_and_the_work(self, store: LeaseStore) -> None:
        await _deliver(store)
        await store.claim(REAPER, NOW + 400, NOW + 430, 10)
        assert await store.renewed("lease-1", REAPER, NOW + 800, NOW + 700, "slow")
        lease = await store.lease("lease-1")
        assert lease is not None
        assert (lease.expires_at, lease.due_at, lease.problem) == (NOW + 800, NOW + 700, "slow")
        assert not await store.renewed("lease-1", REAPER, NOW + 900, NOW + 900, None)

    async def test_what_is_minted_after_it_was_given_up_is_ended(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        (lost,) = await store.claim(REAPER, LATE, LATE + 30, 10)
        assert await store.close(lost, REAPER, "revoked", LATE, "never minted")
        assert await store.minted("lease-1", HANDLE, NOW + 600, LATE + 5) == "revoking"
        (due,) = await store.claim(REAPER, LATE + 5, LATE + 30, 10)
        assert (due.state, due.handle, due.ended_at) == ("revoking", HANDLE, None)

    async def test_a_handle_that_is_known_is_not_lost(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        await store.reserve("lease-1", MINTER, HANDLE)
        await store.minted("lease-1", None, NOW + 600, NOW + 1)
        lease = await store.lease("lease-1")
        assert lease is not None
        assert lease.handle == HANDLE

    async def test_what_cannot_be_ended_is_tried_again(self, store: LeaseStore) -> None:
        await _deliver(store)
        for attempt in range(1, 4):
            due_at = NOW + 400 + 10 * attempt
            (due,) = await store.claim(REAPER, due_at, due_at + 5, 10)
            assert await store.retry(due, REAPER, due_at + 10, "sealed", ending=True)
            assert await store.claim(REAPER, due_at + 9, LATE, 10) == ()
            lease = await store.lease("lease-1")
            assert lease is not None
            assert (lease.state, lease.attempts, lease.problem) == ("revoking", attempt, "sealed")
        (waiting,) = await store.leases()
        assert not await store.retry(waiting, "somebody", NOW, "sealed", ending=True)

    async def test_what_can_only_be_waited_for_is_told_from_what_can_be_ended(
        self, store: LeaseStore
    ) -> None:
        await _deliver(store)
        await store.end_grant("grant-1", NOW + 1)
        assert await store.counts() == {"revoking": 1}
        (due,) = await store.claim(REAPER, NOW + 1, LATE, 10)
        assert due.standing == "revoking"
        assert await store.retry(due, REAPER, due.expires_at, "ends by itself", ending=True)
        assert await store.counts() == {"unrevocable": 1}
        (waiting,) = await store.leases()
        assert (waiting.state, waiting.standing) == ("revoking", "unrevocable")

    async def test_what_is_waited_for_keeps_its_state(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        (due,) = await store.claim(REAPER, SOON, LATE, 10)
        assert await store.retry(due, REAPER, NOW + 900, "perhaps minted", ending=False)
        (waiting,) = await store.leases()
        assert (waiting.state, waiting.due_at) == ("intent", NOW + 900)

    async def test_what_is_minted_meanwhile_is_not_passed_over(self, store: LeaseStore) -> None:
        await store.open(LEASE, MINTER, SOON, 5)
        (due,) = await store.claim(REAPER, SOON, LATE, 10)
        assert await store.minted("lease-1", HANDLE, NOW + 600, SOON) == "minted"
        assert not await store.retry(due, REAPER, NOW + 900, "perhaps minted", ending=False)
        (due,) = await store.claim(REAPER, SOON, LATE, 10)
        assert due.handle == HANDLE
        assert await store.minted("lease-1", b"another", NOW + 600, SOON) == "revoking"
        assert not await store.close(due, REAPER, "revoked", SOON)
        (due,) = await store.claim(REAPER, SOON, LATE, 10)
        assert due.handle == b"another"

    async def test_ending_twice_does_not_hurry_what_is_waited_for(self, store: LeaseStore) -> None:
        await _deliver(store)
        await store.end_grant("grant-1", NOW + 10)
        (due,) = await store.claim(REAPER, NOW + 10, LATE, 10)
        await store.retry(due, REAPER, NOW + 500, "sealed", ending=True)
        assert await store.end_grant("grant-1", NOW + 20) == 0
        assert await store.claim(REAPER, NOW + 499, LATE, 10) == ()

    async def test_only_the_owner_closes(self, store: LeaseStore) -> None:
        await _deliver(store)
        (due,) = await store.claim(REAPER, NOW + 500, NOW + 510, 10)
        assert not await store.close(due, "somebody", "revoked", NOW + 500)
        await store.claim("another", NOW + 510, NOW + 520, 10)
        assert not await store.close(due, REAPER, "revoked", NOW + 510)
        assert await store.close(due, "another", "revoked", NOW + 511)

    @pytest.mark.parametrize("jti", ["grant-root", "grant-0", "grant-1"])
    async def test_a_grants_end_is_that_of_all_who_descend_from_it(
        self, store: LeaseStore, jti: str
    ) -> None:
        await store.open(LEASE, MINTER, NOW, 5)
        await store.open(replace(LEASE, id="child", grant="c", ancestors=(jti,)), MINTER, NOW, 5)
        await store.open(replace(LEASE, id="stranger", grant="s", ancestors=()), MINTER, NOW, 5)
        assert await store.end_grant(jti, NOW + 1) == 2
        states = {lease.id: lease.state for lease in await store.leases()}
        assert states == {"lease-1": "revoking", "child": "revoking", "stranger": "intent"}
        assert await store.end_grant("gra", NOW + 1) == 0

    async def test_a_purge_forgets_what_is_long_over_and_nothing_else(
        self, open_store: OpenStore
    ) -> None:
        storage = open_store()
        await storage.leases.open(LEASE, MINTER, SOON, 1)
        await storage.leases.open(replace(LEASE, id="old", grant="g"), MINTER, NOW, 1)
        await _close(storage.leases, "old")
        assert await storage.purge(NOW + 3600) == 0
        assert await storage.purge(NOW + 30 * 86400) == 1
        assert [lease.id for lease in await storage.leases.leases(over=True)] == ["lease-1"]

    async def test_a_closed_store_refuses(self, open_store: OpenStore) -> None:
        storage = open_store()
        await storage.close()
        with pytest.raises(StorageError, match="closed"):
            await storage.leases.leases()


async def _deliver(store: LeaseStore) -> None:
    await store.open(LEASE, MINTER, SOON, 5)
    await store.minted("lease-1", HANDLE, NOW + 600, NOW + 1)
    await store.delivered("lease-1", NOW + 400)


async def _use(store: LeaseStore, until: float) -> None:
    await store.open(replace(LEASE, delivery="proxy"), MINTER, SOON, 5)
    await store.minted("lease-1", HANDLE, NOW + 600, NOW + 1)
    assert await store.use("lease-1", MINTER, NOW + 600, until)


async def _close(store: LeaseStore, lease: str) -> None:
    await store.end(lease, MINTER, NOW, None)
    claimed = {one.id: one for one in await store.claim(REAPER, NOW, LATE, 10)}
    assert await store.close(claimed[lease], REAPER, "revoked", NOW)
