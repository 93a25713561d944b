"""The home directory: what lies where, how it is made, and how its parts are opened."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from broker.errors import ConfigurationError
from broker.files import create_private, private_directory
from broker.identity.local import new_agent_key
from broker.keys.sealing import create_master_key, load_master_key, master_key_file
from broker.keys.signing import KeySet
from broker.model import EnrolledKey
from broker.secrets.embedded import EmbeddedStore
from broker.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from pathlib import Path

    from broker.keys.sealing import MasterKey, MasterKeySource
    from broker.settings import Settings

SIGNING: Final = "signing"
AUDIT: Final = "audit"


@dataclass(frozen=True, slots=True)
class Places:
    """Where each part of a home lies."""

    home: Path

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.home / "broker.toml"

    @property
    def keys(self) -> Path:
        """The directory of the master key and of the sealed signing keys."""
        return self.home / "keys"

    @property
    def signing_keys(self) -> Path:
        """The sealed keys that sign task tokens."""
        return self.keys / "signing.sealed"

    @property
    def audit_keys(self) -> Path:
        """The sealed keys that sign the trail's checkpoints."""
        return self.keys / "audit.sealed"

    @property
    def data(self) -> Path:
        """The directory of everything that the broker writes while it runs."""
        return self.home / "data"

    @property
    def database(self) -> Path:
        """Grants, replay claims and enrolled keys."""
        return self.data / "broker.db"

    @property
    def limits(self) -> Path:
        """What several workers count together."""
        return self.data / "limits.db"

    @property
    def secrets(self) -> Path:
        """The embedded store."""
        return self.data / "secrets.db"

    @property
    def audit(self) -> Path:
        """The directory of the trail's segments."""
        return self.data / "audit"

    @property
    def agents(self) -> Path:
        """The directory of the private keys of agents on this machine."""
        return self.home / "agents"

    @property
    def policies(self) -> Path:
        """The directory of the policy documents."""
        return self.home / "policies"

    def agent_key(self, agent: str) -> Path:
        """The private key of a local agent."""
        return self.agents / f"{agent}.pem"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one home, opened."""

    master: MasterKey
    signing: KeySet
    audit: KeySet


def create_home(settings: Settings) -> tuple[Path, ...]:
    """Make whatever of a home is missing; return what was made. Nothing is overwritten.

    Raises:
        ConfigurationError: something there is not private, or is not what it should be.
    """
    places = Places(settings.home)
    source = cast("MasterKeySource", settings.master_key_source)
    made: list[Path] = []
    for directory in (
        places.home,
        places.keys,
        places.data,
        places.audit,
        places.agents,
        places.policies,
    ):
        if not directory.exists():
            made.append(directory)
        private_directory(directory)
    sealed = [path for path in (places.signing_keys, places.audit_keys) if path.exists()]
    try:
        master = load_master_key(source, settings.home)
    except ConfigurationError as refusal:
        # Where something has been sealed, a new master key would only hide that the old is lost.
        if sealed or places.secrets.exists():
            raise
        try:
            master = create_master_key(source, settings.home)
        except ConfigurationError:
            raise refusal from None
        made += [master_key_file(settings.home)] if source == "file" else []
    for path, purpose in ((places.signing_keys, SIGNING), (places.audit_keys, AUDIT)):
        if path in sealed:
            KeySet.open(path, master, purpose)  # what is made beside it must go with it
        else:
            KeySet.create(path, master, purpose)
            made.append(path)
    return tuple(made)


def open_keys(settings: Settings) -> Keys:
    """Return the keys of a home.

    Raises:
        ConfigurationError: the home has not been set up, a file in it is not private, or the
            master key is not the one that sealed them; says which.
    """
    places = Places(settings.home)
    if not places.keys.is_dir():
        raise ConfigurationError(
            f"{settings.home}: there is no broker here; run `broker init`, or name another "
            "directory with --home or BROKER_HOME"
        )
    for directory in (places.home, places.keys):
        private_directory(directory)
    master = load_master_key(cast("MasterKeySource", settings.master_key_source), settings.home)
    return Keys(
        master,
        KeySet.open(places.signing_keys, master, SIGNING),
        KeySet.open(places.audit_keys, master, AUDIT),
    )


def open_storage(settings: Settings) -> SqliteStorage:
    """Return the broker's database; the caller closes it."""
    places = Places(settings.home)
    private_directory(places.data)
    return SqliteStorage(places.database)


def open_store(settings: Settings, master: MasterKey) -> EmbeddedStore:
    """Return the embedded store of secrets; the caller closes it."""
    places = Places(settings.home)
    private_directory(places.data)
    return EmbeddedStore(places.secrets, master)


async def enrol_agent(settings: Settings, agent: str) -> Path:
    """Make a key pair for a local agent; keep the public key, and return the private one's file.

    Raises:
        ConfigurationError: the agent has a private key here already.
        StorageError: the public key could not be kept.
    """
    places = Places(settings.home)
    private_directory(places.agents)
    path = places.agent_key(agent)
    pair = new_agent_key()
    storage = open_storage(settings)
    try:
        create_private(path, pair.pem.reveal())
        try:
            enrolled = EnrolledKey(agent, pair.kid, pair.public_jwk, int(time.time()))
            await storage.enrol(enrolled)
        except BaseException:
            path.unlink()  # a private key that no broker knows would only look like one
            raise
    finally:
        await storage.close()
    return path
