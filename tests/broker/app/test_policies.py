from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.app.backends import reference_check
from broker.app.home import Places, create_home, open_storage
from broker.app.identities import Identities
from broker.app.policies import (
    home_policy,
    kept_at_start,
    kept_documents,
    kept_policy,
    open_policies,
)
from broker.changes.edits import canonical
from broker.changes.following import unreadable
from broker.errors import AuditUnavailable, PolicyError, StorageError
from broker.identity.base import Audiences
from broker.model import AuditRecord, PolicyChange, PolicyEdit, PolicyEntry
from broker.settings import Settings
from broker.storage.base import KeptPolicy
from tests.fakes.admin_bench import STRIPE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.model import EnrolledKey
    from broker.reload import PolicyStore
    from broker.repeated import RepeatedRecord

GOOD = "identity_sources: {local: {type: local}}\n"
BAD = "identity_sources: {local: {type: locl}}\n"


async def nobody(_: str) -> tuple[EnrolledKey, ...]:
    """Return the keys of an agent that never enrolled."""
    return ()


class ListedTrail:
    """A trail in memory; `full` makes it refuse."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.full = False

    def append(
        self,
        record: AuditRecord | RepeatedRecord,
        durable: Callable[[Exception | None], None] | None = None,
    ) -> None:
        """Keep the record."""
        assert durable is None
        assert isinstance(record, AuditRecord)
        if self.full:
            raise AuditUnavailable("the disk is full")
        self.records.append(record)

    async def record(self, record: AuditRecord) -> None:
        """Keep the record."""
        self.append(record)


class Bench:
    """A directory of policies, and a trail of what became of them."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home, issuer="http://127.0.0.1:8700")
        create_home(self.settings)
        self.document = self.settings.policies / "p.yaml"
        self.trail = ListedTrail()
        self.identities = Identities(
            Audiences(self.settings.issuer, self.settings.token_endpoint), nobody
        )

    async def open(self) -> PolicyStore:
        """Open the store."""
        check = reference_check(self.settings)
        return await open_policies(self.settings, check, self.identities, self.trail, KeptPolicy(0))

    @property
    def decisions(self) -> list[str]:
        """What has been recorded."""
        return [record.decision for record in self.trail.records]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "home")


async def test_loading_is_on_record(bench: Bench) -> None:
    bench.document.write_text(GOOD)
    store = await bench.open()
    (record,) = bench.trail.records
    assert record.action == "policy.load"
    assert record.decision == "allow"
    assert record.policy_version == store.current.version


async def test_a_broker_does_not_start_with_a_bad_policy_and_that_is_on_record(
    bench: Bench,
) -> None:
    bench.document.write_text(BAD)
    with pytest.raises(PolicyError, match=str(bench.document)):
        await bench.open()
    (record,) = bench.trail.records
    assert (record.decision, record.policy_version) == ("deny", None)
    assert record.detail is not None
    assert str(bench.document) in record.detail


async def test_each_reload_is_logged_and_on_record(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "broker.app.policies")
    bench.document.write_text(GOOD)
    store = await bench.open()
    first = store.current.version
    bench.document.write_text(BAD)
    store.reload()
    assert "the new policy is refused, the old one stays" in caplog.text
    bench.document.write_text(GOOD + "agents: {}\n")
    store.reload()
    assert bench.decisions == ["allow", "deny", "allow"]
    assert bench.trail.records[1].policy_version == first


async def test_that_it_cannot_be_known_what_is_kept_is_on_record(bench: Bench) -> None:
    bench.document.write_text(GOOD)
    store = await bench.open()
    store.doubt((unreadable(StorageError("version 2 is not what was stored")),))
    assert bench.decisions == ["allow", "deny"]
    assert bench.trail.records[1].detail == "api:1:1: version 2 is not what was stored"
    assert bench.trail.records[1].policy_version == store.current.version


async def test_a_source_that_cannot_be_built_refuses_the_policy(bench: Bench) -> None:
    bench.document.write_text(GOOD)
    store = await bench.open()
    own = f"identity_sources: {{me: {{type: oidc, issuer: '{bench.settings.issuer}'}}}}\n"
    bench.document.write_text(own)
    store.reload()
    assert "own issuer" in str(store.problems[0])
    assert "local" in store.current.identity_sources


async def test_a_vault_that_is_not_configured_refuses_the_policy(bench: Bench) -> None:
    bench.document.write_text(
        "services: {v: {provider: http_api, base_url: 'https://v.example', "
        "credential: {type: bearer, secret: 'vault:kv/v#key'}}}"
    )
    with pytest.raises(PolicyError, match="BROKER_VAULT_ADDRESS"):
        await bench.open()


async def test_a_reload_that_cannot_be_recorded_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.document.write_text(GOOD)
    store = await bench.open()
    bench.trail.full = True
    bench.document.write_text(BAD)
    store.reload()
    assert "the disk is full" in caplog.text


async def test_what_the_database_keeps_is_policy_for_commands_too(bench: Bench) -> None:
    bench.document.write_text(GOOD)
    assert kept_policy(bench.settings) == KeptPolicy(0)
    assert not Places(bench.settings.home).database.exists()
    storage = open_storage(bench.settings)
    edit = PolicyEdit("services", "s", canonical(STRIPE))
    await storage.policies.commit(PolicyChange(0, "a", None, (edit,)), 0)
    kept = await storage.policies.kept()
    await storage.close()
    assert kept_policy(bench.settings) == kept
    assert set(home_policy(bench.settings).services) == {"s"}
    (document,) = kept_documents(bench.settings)
    assert document.name == "api:services/s"
    bench.document.write_text(GOOD + "services: {s: {provider: http_api}}\n")
    with pytest.raises(PolicyError, match="defined twice: here and at"):
        home_policy(bench.settings)


async def test_a_broker_does_not_start_with_an_edited_database_and_that_is_on_record(
    bench: Bench,
) -> None:
    storage = open_storage(bench.settings)
    edit = PolicyEdit("services", "s", canonical(STRIPE))
    await storage.policies.commit(PolicyChange(0, "a", None, (edit,)), 0)
    with closing(sqlite3.connect(Places(bench.settings.home).database)) as database, database:
        database.execute("DROP TRIGGER policy_versions_are_not_edited")
        database.execute("UPDATE policy_versions SET edits = replace(edits, 'stripe', 'evil')")
    with pytest.raises(StorageError, match="version 1 of the policy is not what was stored"):
        await kept_at_start(storage.policies, bench.trail)
    (record,) = bench.trail.records
    assert (record.action, record.decision, record.policy_version) == ("policy.load", "deny", None)
    assert "Somebody has edited the database" in (record.detail or "")
    await storage.close()


async def test_a_broker_starts_with_what_the_database_keeps(bench: Bench) -> None:
    bench.document.write_text(GOOD)
    change = PolicyChange(0, "a", None, (), 1)
    kept = KeptPolicy(1, (PolicyEntry("services", "s", canonical(STRIPE), change),))
    check = reference_check(bench.settings)
    with pytest.raises(PolicyError, match="BROKER_VAULT_ADDRESS") as refusal:
        await open_policies(bench.settings, check, bench.identities, bench.trail, kept)
    assert "api:services/s:" in str(refusal.value)
    store = await open_policies(bench.settings, lambda _: None, bench.identities, bench.trail, kept)
    assert set(store.current.services) == {"s"}
