"""The secret backends that the settings give, and what a policy may refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.app.home import open_store
from broker.errors import ConfigurationError
from broker.policy.references import check_reference
from broker.secrets.embedded import EmbeddedBackend
from broker.secrets.env import EnvBackend
from broker.secrets.file import FileBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.keys.sealing import MasterKey
    from broker.secrets.base import SecretBackend
    from broker.secrets.vault import VaultBackend
    from broker.settings import Settings


def open_backends(
    settings: Settings, master: MasterKey, vault: VaultBackend | None
) -> tuple[SecretBackend, ...]:
    """Return the backends of all schemes."""
    return (
        EmbeddedBackend(open_store(settings, master)),
        EnvBackend(),
        FileBackend(),
        *(() if vault is None else (vault,)),
    )


def open_vault(settings: Settings) -> VaultBackend | None:
    """Return Vault's backend, or None where the settings name no Vault."""
    if settings.vault.address is None:
        return None
    from broker.secrets.vault import VaultBackend  # noqa: PLC0415 - hvac is slow, and seldom used

    return VaultBackend(settings.vault)


def reference_check(
    settings: Settings, exact: Callable[[str], None] | None = None
) -> Callable[[str], None]:
    """Return what judges the secret references of a policy, given these settings.

    `exact` judges the form within a scheme. The check raises `ConfigurationError` and does no
    I/O.
    """

    def check(reference: str) -> None:
        check_reference(reference)
        if reference.startswith("vault:") and settings.vault.address is None:
            raise ConfigurationError(
                "refers to a Vault, and none is configured; set address in the table [vault] of "
                "broker.toml, or BROKER_VAULT_ADDRESS"
            )
        if exact is not None:
            exact(reference)

    return check
