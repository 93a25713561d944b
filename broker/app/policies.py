"""The policy in force: loaded with all that depends on it, its changes logged and on record."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from broker.app.home import Places
from broker.changes.edits import documents_of
from broker.changes.following import unreadable
from broker.errors import AuditUnavailable, PolicyError, StorageError
from broker.model import AuditRecord
from broker.policy.loader import load_policy
from broker.policy.references import check_reference
from broker.reload import PolicyStore, read_policies
from broker.storage.base import KeptPolicy
from broker.storage.policies import read_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.app.identities import Identities
    from broker.audit.base import Trail
    from broker.errors import Problem
    from broker.policy.engine import Policy
    from broker.policy.source import Document
    from broker.reload import Reload
    from broker.settings import Settings
    from broker.storage.base import PolicyHistory

ACTION: Final = "policy.load"

_LOG: Final = logging.getLogger(__name__)


async def open_policies(
    settings: Settings,
    check: Callable[[str], None],
    identities: Identities,
    trail: Trail,
    kept: KeptPolicy,
) -> PolicyStore:
    """Return the store of the policy in force, whose sources `identities` uses from now on.

    `kept` are the entries that stand beside the documents in files.

    Raises:
        PolicyError: the documents do not load; that is on record.
    """

    def load(documents: Iterable[Document]) -> Policy:
        policy = load_policy(documents, check_reference=check)
        identities.prepare(policy)
        return policy

    try:
        store = PolicyStore(settings.policies, load, documents_of(kept))
    except PolicyError as error:
        await trail.record(_record(None, error.problems))
        raise
    identities.adopt(store.current)
    await trail.record(_record(store.current.version, ()))
    _LOG.info("policy %s is in force", store.current.version)

    def reloaded(result: Reload) -> None:
        if result.problems:
            for problem in result.problems:
                _LOG.error("the new policy is refused, the old one stays: %s", problem)
        else:
            identities.adopt(result.policy)
            _LOG.info("policy %s is in force now", result.policy.version)
        try:
            trail.append(_record(result.policy.version, result.problems))
        except AuditUnavailable as error:
            _LOG.error("this is not on record: %s", error)

    store.subscribe(reloaded)
    return store


async def kept_at_start(history: PolicyHistory, trail: Trail) -> KeptPolicy:
    """Return the entries that the database keeps.

    Raises:
        StorageError: they cannot be read, or are not what was stored; that is on record.
    """
    try:
        return await history.kept()
    except StorageError as error:
        await trail.record(_record(None, (unreadable(error),)))
        raise


def kept_policy(settings: Settings) -> KeptPolicy:
    """Return the entries that the database keeps; none where there is no database yet.

    For commands: it does not wait for an event loop. Raises `StorageError`.
    """
    if not Places(settings.home).database.exists():
        return KeptPolicy(0)  # looking must create nothing
    return read_kept(Places(settings.home).database)


def kept_documents(settings: Settings) -> tuple[Document, ...]:
    """Return the documents that `kept_policy` stands for."""
    return documents_of(kept_policy(settings))


def home_policy(settings: Settings, check: Callable[[str], None] = check_reference) -> Policy:
    """Return the policy that the files and the database of a home make, for commands.

    Raises:
        PolicyError: they make none.
        StorageError: the database cannot be read.
    """
    documents = read_policies(settings.policies) + kept_documents(settings)
    return load_policy(documents, check_reference=check)


def _record(version: str | None, problems: tuple[Problem, ...]) -> AuditRecord:
    return AuditRecord(
        time=time.time(),
        action=ACTION,
        phase="outcome",
        operation=secrets.token_hex(8),
        decision="deny" if problems else "allow",
        policy_version=version,
        detail="; ".join(map(str, problems)) or None,
    )
