"""Secrets from HashiCorp Vault and OpenBao: the key-value engines, versions 1 and 2."""

from broker.secrets.vault.backend import VaultBackend

__all__ = ["VaultBackend"]
