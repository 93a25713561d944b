"""How each part of the broker is, for `/readyz`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from broker.api.health import OK, Health
from broker.errors import SecretUnavailable, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from broker.app.identities import Identities
    from broker.audit.trail import AuditTrail
    from broker.reload import PolicyStore
    from broker.secrets.vault import VaultBackend
    from broker.storage.base import Storage


def probes(
    policies: PolicyStore,
    trail: AuditTrail,
    storage: Storage,
    identities: Identities,
    vault: VaultBackend | None,
) -> Mapping[str, Callable[[], Awaitable[Health]]]:
    """Return what to ask of each part, by the part's name."""
    always: dict[str, Callable[[], Awaitable[Health]]] = {
        "policy": partial(policy_health, policies),
        "audit": partial(audit_health, trail),
        "storage": partial(storage_health, storage),
        "identity": identities.health,
    }
    return always if vault is None else always | {"vault": partial(vault_health, vault)}


async def policy_health(policies: PolicyStore) -> Health:
    """Say whether the documents on disk are the policy in force."""
    if not policies.problems:
        return OK
    told = "; ".join(map(str, policies.problems))
    return Health("degraded", f"the new policy is refused, an older one is in force: {told}")


async def audit_health(trail: AuditTrail) -> Health:
    """Say whether the trail takes records; where it does not, nothing may happen."""
    return OK if trail.failure is None else Health("failing", trail.failure)


async def storage_health(storage: Storage) -> Health:
    """Say whether the database answers."""
    try:
        await storage.grant("")
    except StorageError as error:
        return Health("failing", str(error))
    return OK


async def vault_health(vault: VaultBackend) -> Health:
    """Say whether Vault answers; where it does not, cached values serve for a while."""
    try:
        await vault.start()
    except SecretUnavailable as error:
        return Health("degraded", str(error))
    return OK
