"""The master key in the system keyring: Keychain, Secret Service, KWallet, Credential Locker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SERVICE: Final = "agent-token-broker"


class KeyringEntry:
    """The entry of one home directory; every method raises `ConfigurationError`."""

    def __init__(self, home: Path) -> None:
        import keyring  # noqa: PLC0415 - slow to import, and needed with this source alone
        import keyring.errors  # noqa: PLC0415

        self._keyring: Final = keyring.get_keyring()
        self._error: Final = keyring.errors.KeyringError
        self._user: Final = str(home.absolute())
        if type(self._keyring).__module__.startswith("keyrings.alt"):
            raise ConfigurationError(
                f"the keyring {type(self._keyring).__name__} keeps keys in plain text; use a "
                'system keyring, or set master_key_source = "file" in broker.toml'
            )

    def read(self) -> str | None:
        """Return what is kept, or None."""
        try:
            return self._keyring.get_password(SERVICE, self._user)
        except self._error as error:
            raise self._unusable(error) from None

    def write(self, text: str) -> None:
        """Keep `text`, and make sure that it was kept."""
        try:
            self._keyring.set_password(SERVICE, self._user, text)
        except self._error as error:
            raise self._unusable(error) from None
        if self.read() != text:
            raise ConfigurationError(
                "the system keyring did not keep the master key; "
                'set master_key_source = "file" in broker.toml'
            )

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"the system keyring cannot be used ({type(error).__name__}); unlock it, "
            'or set master_key_source = "file" in broker.toml'
        )
