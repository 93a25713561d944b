from __future__ import annotations

from typing import TYPE_CHECKING

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import pytest

from broker.errors import ConfigurationError
from broker.keys.sealing import create_master_key, load_master_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class MemoryKeyring(keyring.backend.KeyringBackend):
    """Stands for the desktop's keyring, which needs a session to run."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def system_keyring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_the_keyring_source_keeps_a_key_for_each_home(
    tmp_path: Path, system_keyring: MemoryKeyring
) -> None:
    made = create_master_key("keyring", tmp_path)
    assert list(system_keyring.entries) == [("agent-token-broker", str(tmp_path))]
    assert load_master_key("keyring", tmp_path).key_id == made.key_id
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="already"):
        create_master_key("keyring", tmp_path)
    with pytest.raises(ConfigurationError, match=r"no master key for .*; run: broker init"):
        load_master_key("keyring", tmp_path / "other")


@pytest.mark.usefixtures("system_keyring")
def test_a_keyring_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    keyring.set_keyring(keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigurationError, match=r"cannot be used \(NoKeyringError\); unlock"):
        load_master_key("keyring", tmp_path)
    keyring.set_keyring(keyring.backends.null.Keyring())  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigurationError, match="did not keep the master key"):
        create_master_key("keyring", tmp_path)


@pytest.mark.usefixtures("system_keyring")
def test_a_keyring_that_keeps_plain_text_is_refused(tmp_path: Path) -> None:
    class PlaintextKeyring(MemoryKeyring):
        priority = 2

    PlaintextKeyring.__module__ = "keyrings.alt.file"
    keyring.set_keyring(PlaintextKeyring())
    with pytest.raises(ConfigurationError, match="PlaintextKeyring keeps keys in plain text"):
        create_master_key("keyring", tmp_path)
