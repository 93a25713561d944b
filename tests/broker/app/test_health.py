from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pytest

from broker.app.health import (
    audit_health,
    limits_health,
    policy_health,
    probes,
    storage_health,
    vault_health,
)
from broker.app.home import Places, create_home, open_keys, open_storage
from broker.app.trail import trusted_keys
from broker.audit.journal import Journal
from broker.audit.trail import AuditTrail
from broker.errors import LimitsUnavailable, SecretUnavailable, StorageError
from broker.limits.memory import MemoryCounts
from broker.reload import PolicyStore
from broker.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from broker.app.identities import Identities
    from broker.limits.base import Counts
    from broker.secrets.vault import VaultBackend
    from broker.storage.base import Storage, TotalStore


class FailingStorage:
    """A database that cannot be read."""

    async def check(self) -> None:
        """Fail."""
        raise StorageError("the disk is gone")


class SealedVault:
    """A Vault that does not answer."""

    async def start(self) -> None:
        """Fail."""
        raise SecretUnavailable("Vault is sealed", retryable=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(tmp_path / "home")
    create_home(settings)
    return settings


async def test_a_refused_policy_degrades_and_says_where(settings: Settings) -> None:
    document = settings.policies / "p.yaml"
    document.write_text("{}")
    store = PolicyStore(settings.policies)
    assert (await policy_health(store)).state == "ok"
    document.write_text("scops: {}")
    store.reload()
    health = await policy_health(store)
    assert health.state == "degraded"
    assert f"{document}:1" in str(health.reason)


async def test_a_trail_that_takes_no_records_fails(settings: Settings) -> None:
    keys = open_keys(settings).audit
    trail = AuditTrail(Journal(settings.home / "data/audit", keys.signer, trusted_keys(keys)))
    assert (await audit_health(trail)).state == "failing"
    await trail.start()
    assert (await audit_health(trail)).state == "ok"
    await trail.close()
    assert "closed" in str((await audit_health(trail)).reason)


async def test_a_database_that_cannot_be_read_fails(settings: Settings) -> None:
    storage = open_storage(settings)
    assert (await storage_health(storage)).state == "ok"
    await storage.close()
    failing = await storage_health(cast("Storage", FailingStorage()))
    assert failing.state == "failing"
    assert "the disk is gone" in str(failing.reason)


async def test_a_database_that_takes_nothing_more_degrades_until_it_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.sqlite.BUSY_TIMEOUT", 0.1)
    storage = open_storage(settings)
    place = Places(settings.home).database
    with closing(sqlite3.connect(place, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await storage.note_use({})
        for _ in range(2):
            health = await storage_health(storage)
            assert health.state == "degraded"
            assert "no token is issued: another process" in str(health.reason)
        hog.execute("ROLLBACK")
    assert (await storage_health(storage)).state == "ok"
    await storage.close()


async def test_a_vault_that_does_not_answer_degrades() -> None:
    health = await vault_health(cast("VaultBackend", SealedVault()))
    assert (health.state, health.reason) == ("degraded", "Vault is sealed")


def test_a_vault_is_asked_for_where_there_is_one() -> None:
    parts = (
        cast("PolicyStore", None),
        cast("AuditTrail", None),
        cast("Storage", None),
        cast("Identities", NamedIdentities()),
        cast("Counts", UnreachableCounts()),
    )
    assert set(probes(*parts, None)) == {"policy", "audit", "storage", "identity", "limits"}
    assert "vault" in probes(*parts, cast("VaultBackend", SealedVault()))


async def test_counts_that_cannot_be_reached_degrade() -> None:
    health = await limits_health(cast("Counts", UnreachableCounts()))
    assert (health.state, health.reason) == ("degraded", "the server cannot count now")
    health = await limits_health(MemoryCounts(cast("TotalStore", None)))
    assert health.state == "ok"


class UnreachableCounts:
    """Counts of a server that is not there."""

    async def check(self) -> None:
        """Say so."""
        raise LimitsUnavailable("the server cannot count now")


class NamedIdentities:
    """Identities that are only named."""

    async def health(self) -> None:
        """Answer nothing."""
