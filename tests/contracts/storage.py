"""What every storage backend must do; subclass it and give it an `open_store` fixture."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import StorageError
from broker.model import EnrolledKey, Grant
from broker.storage.base import ReplayClaim

if TYPE_CHECKING:
    from broker.storage.base import Storage


class OpenStore(Protocol):
    """Open the same store once more, as another worker would."""

    def __call__(self) -> Storage: ...


NOW = 1_750_000_000
GRANT = Grant(
    jti="grant-1",
    agent="release-bot",
    issuer="https://issuer.example",
    subject="repo:acme/app",
    scopes=("stripe.read", "issues.write"),
    issued_at=NOW,
    expires_at=NOW + 900,
    policy_version="sha256:00",
    client_id="release-bot",
    task="release 1.2",
    reason="it is Tuesday",
    ancestors=("grant-root", "grant-0"),
    actor={"sub": "helper", "act": {"sub": "older"}},
    claims={"repository_id": "123", "count": 3, "nested": {"é": [True, None]}},
)
PLAIN = Grant(
    jti="grant-2",
    agent="b",
    issuer="local",
    subject="b",
    scopes=("x",),
    issued_at=NOW,
    expires_at=NOW + 1,
    policy_version="v",
    client_id="b",
)
CLAIM = ReplayClaim("https://issuer.example", "jti-1", NOW + 330.0)
KEY = EnrolledKey("release-bot", "kid-1", {"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}, NOW)


class StorageContract:
    async def test_a_grant_comes_back_as_it_was_stored(self, store: Storage) -> None:
        assert await store.save_grant(GRANT) == "saved"
        assert await store.save_grant(PLAIN) == "saved"
        assert await store.grant("grant-1") == GRANT
        assert await store.grant("grant-2") == PLAIN

    async def test_an_unknown_grant_is_none(self, store: Storage) -> None:
        assert await store.grant("nobody") is None
        assert await store.grant("grant-1' OR '1'='1") is None

    async def test_a_jti_is_stored_once(self, store: Storage) -> None:
        await store.save_grant(GRANT)
        with pytest.raises(StorageError):
            await store.save_grant(replace(GRANT, agent="other"))
        assert await store.grant("grant-1") == GRANT

    async def test_a_claim_is_spent_once(self, store: Storage) -> None:
        assert not await store.is_spent(CLAIM)
        assert await store.save_grant(GRANT, CLAIM) == "saved"
        assert await store.is_spent(CLAIM)
        assert not await store.is_spent(replace(CLAIM, token_id="another"))
        assert await store.save_grant(PLAIN, CLAIM) == "spent"

    async def test_a_spent_claim_stores_no_grant(self, store: Storage) -> None:
        await store.save_grant(GRANT, CLAIM)
        await store.save_grant(PLAIN, CLAIM)
        assert await store.grant("grant-2") is None

    async def test_a_grant_that_fails_spends_no_claim(self, store: Storage) -> None:
        await store.save_grant(GRANT)
        with pytest.raises(StorageError):
            await store.save_grant(GRANT, CLAIM)
        assert await store.save_grant(PLAIN, CLAIM) == "saved"

    @pytest.mark.parametrize(
        "other",
        [
            ReplayClaim("https://issuer.example", "jti-2", NOW),
            ReplayClaim("https://issuer.example/", "jti-1", NOW),
            ReplayClaim("https://issuer.examplejti-1", "", NOW),
            ReplayClaim("", "https://issuer.examplejti-1", NOW),
        ],
    )
    async def test_a_claim_is_issuer_and_token_id_together(
        self, store: Storage, other: ReplayClaim
    ) -> None:
        assert await store.save_grant(GRANT, CLAIM) == "saved"
        assert await store.save_grant(PLAIN, other) == "saved"

    async def test_a_claim_is_the_same_whatever_its_end(self, store: Storage) -> None:
        assert await store.save_grant(GRANT, CLAIM) == "saved"
        assert await store.save_grant(PLAIN, replace(CLAIM, until=NOW + 9_999_999.0)) == "spent"

    async def test_of_many_at_once_one_spends_the_claim(
        self, store: Storage, open_store: OpenStore
    ) -> None:
        other = open_store()
        attempts = [
            (store, other)[n % 2].save_grant(replace(GRANT, jti=f"g{n}"), CLAIM) for n in range(100)
        ]
        assert (await asyncio.gather(*attempts)).count("saved") == 1
        grants = [await store.grant(f"g{n}") for n in range(100)]
        assert sum(grant is not None for grant in grants) == 1

    async def test_what_one_stores_another_reads(
        self, store: Storage, open_store: OpenStore
    ) -> None:
        other = open_store()
        await store.save_grant(GRANT)
        assert await other.grant("grant-1") == GRANT

    async def test_keys_come_back_by_agent_and_all_together(self, store: Storage) -> None:
        second = replace(KEY, kid="kid-2", enrolled_at=NOW + 1)
        foreign = replace(KEY, kid="kid-3", agent="other", enrolled_at=NOW + 2)
        for key in (foreign, second, KEY):
            await store.enrol(key)
        assert await store.enrolled_keys("release-bot") == (KEY, second)
        assert await store.enrolled_keys() == (KEY, second, foreign)
        assert await store.enrolled_keys("nobody") == ()

    async def test_enrolling_twice_changes_nothing(self, store: Storage) -> None:
        await store.enrol(KEY)
        await store.enrol(replace(KEY, enrolled_at=NOW + 5))
        assert await store.enrolled_keys() == (KEY,)

    async def test_a_key_belongs_to_one_agent(self, store: Storage) -> None:
        await store.enrol(KEY)
        with pytest.raises(StorageError, match="'release-bot' already"):
            await store.enrol(replace(KEY, agent="thief"))
        assert await store.enrolled_keys("thief") == ()

    async def test_unenrolling_counts_what_it_removes(self, store: Storage) -> None:
        await store.enrol(KEY)
        await store.enrol(replace(KEY, kid="kid-2"))
        await store.enrol(replace(KEY, kid="kid-3", agent="other"))
        assert await store.unenrol("release-bot") == 2
        assert await store.unenrol("release-bot") == 0
        assert [key.agent for key in await store.enrolled_keys()] == ["other"]

    async def test_a_purge_keeps_what_still_matters(self, store: Storage) -> None:
        await store.save_grant(GRANT, CLAIM)
        assert await store.purge(NOW) == 0
        assert await store.purge(CLAIM.until + 3600) == 0  # a clock that was an hour ahead
        assert await store.save_grant(PLAIN, CLAIM) == "spent"
        assert await store.grant("grant-1") == GRANT

    async def test_a_purge_forgets_what_is_long_over(self, store: Storage) -> None:
        await store.save_grant(GRANT, CLAIM)
        await store.save_grant(PLAIN)
        assert await store.purge(NOW + 30 * 86400.0) == 3
        assert await store.grant("grant-1") is None
        assert await store.purge(NOW + 30 * 86400.0) == 0

    async def test_a_closed_store_refuses(self, store: Storage) -> None:
        await store.close()
        with pytest.raises(StorageError, match="closed"):
            await store.grant("grant-1")
        await store.close()

    async def test_closing_finishes_what_is_queued(
        self, store: Storage, open_store: OpenStore
    ) -> None:
        pending = [
            asyncio.ensure_future(store.save_grant(replace(PLAIN, jti=f"q{n}"))) for n in range(50)
        ]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*pending) == ["saved"] * 50
        assert await open_store().grant("q49") is not None

    async def test_giving_up_on_one_operation_harms_no_other(self, store: Storage) -> None:
        given_up = asyncio.ensure_future(store.save_grant(GRANT))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await store.save_grant(PLAIN) == "saved"

    @given(
        text=st.text(st.characters(codec="utf-8"), max_size=200),
        number=st.integers(-(2**63), 2**63 - 1),
    )
    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_any_text_survives(self, store: Storage, text: str, number: int) -> None:
        jti = f"{time.monotonic_ns()}"
        grant = replace(
            GRANT, jti=jti, task=text, reason=text, subject=text, claims={text: [number, text]}
        )
        await store.save_grant(grant, ReplayClaim(text, jti, 0.0))
        assert await store.grant(jti) == grant
