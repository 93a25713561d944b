"""How each part of the broker is, for `/readyz`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from broker.api.health import OK, Health
from broker.errors import LimitsUnavailable, SecretUnavailable, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from broker.app.identities import Identities
    from broker.app.tally import Tally
    from broker.audit.trail import AuditTrail
    from broker.limits.base import Counts
    from broker.reload import PolicyStore
    from broker.secrets.vault import VaultBackend
    from broker.storage.base import Storage


def probes(  # noqa: PLR0913, PLR0917 - the parts that there are
    policies: PolicyStore,
    trail: AuditTrail,
    storage: Storage,
    identities: Identities,
    counts: Counts,
    vault: VaultBackend | None,
    tally: Tally | None = None,
) -> Mapping[str, Callable[[], Awaitable[Health]]]:
    """Return what to ask of each part, by the part's name."""
    always: dict[str, Callable[[], Awaitable[Health]]] = {
        "policy": partial(policy_health, policies),
        "audit": partial(audit_health, trail),
        "storage": partial(storage_health, storage),
        "identity": identities.health,
        "limits": partial(limits_health, counts),
    }
    if vault is not None:
        always["vault"] = partial(vault_health, vault)
    if tally is not None:
        always["workers"] = partial(workers_health, tally)
    return always


def unwell(policies: PolicyStore, trail: AuditTrail) -> Mapping[str, str]:
    """Return what this worker tells the others of itself: by part, why it is not as it should."""
    found = {"policy": _refused(policies), "audit": trail.failure}
    return {part: reason for part, reason in found.items() if reason is not None}


def _refused(policies: PolicyStore) -> str | None:
    if not policies.problems:
        return None
    told = "; ".join(map(str, policies.problems))
    return f"the new policy is refused, an older one is in force: {told}"


async def policy_health(policies: PolicyStore) -> Health:
    """Say whether the documents on disk are the policy in force."""
    reason = _refused(policies)
    return OK if reason is None else Health("degraded", reason)


async def audit_health(trail: AuditTrail) -> Health:
    """Say whether the trail takes records; where it does not, nothing may happen."""
    return OK if trail.failure is None else Health("failing", trail.failure)


async def storage_health(storage: Storage) -> Health:
    """Say whether the database answers, and takes what is written as far as is known.

    What was given before it took no more can still be used.
    """
    try:
        unwritable = await storage.check()
    except StorageError as error:
        return Health("failing", str(error))
    return OK if unwritable is None else Health("degraded", f"no token is issued: {unwritable}")


async def limits_health(counts: Counts) -> Health:
    """Say whether requests can be counted; without that, those that have limits are refused."""
    try:
        await counts.check()
    except LimitsUnavailable as error:
        return Health("degraded", str(error))
    return OK


async def vault_health(vault: VaultBackend) -> Health:
    """Say whether Vault answers; where it does not, cached values serve for a while."""
    try:
        await vault.start()
    except SecretUnavailable as error:
        return Health("degraded", str(error))
    return OK


async def workers_health(tally: Tally) -> Health:
    """Say which of the other workers are not as they should be: this one answers for itself."""
    told = "; ".join(f"worker {number}: {reason}" for number, reason in tally.unwell_others())
    return Health("degraded", told) if told else OK
