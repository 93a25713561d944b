"""A broker's home in which everything has been used once, and what opens each file in it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from broker.app.home import Places, create_home, open_keys, open_storage, open_store
from broker.app.trail import recorded
from broker.keys.sealing import master_key_file
from broker.settings import Settings, load_settings
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def use_master(settings: Settings) -> None:
    open_keys(settings)


def use_database(settings: Settings) -> None:
    open_storage(settings)


def use_secrets(settings: Settings) -> None:
    open_store(settings, open_keys(settings).master)


def use_trail(settings: Settings) -> None:
    with recorded(settings, "test", "an attack"):
        raise AssertionError("the trail took a record")


class Kept(NamedTuple):
    """A file of the broker's: where it is, and what opens it."""

    path: Callable[[Path], Path]
    open: Callable[[Settings], None]


KEPT = {
    "master key": Kept(master_key_file, use_master),
    "signing keys": Kept(lambda home: Places(home).signing_keys, use_master),
    "audit keys": Kept(lambda home: Places(home).audit_keys, use_master),
    "database": Kept(lambda home: Places(home).database, use_database),
    "secrets": Kept(lambda home: Places(home).secrets, use_secrets),
    "trail": Kept(lambda home: next(Places(home).audit.glob("cli-*.jsonl")), use_trail),
}


def used_home(path: Path) -> Settings:
    """Make a home and use everything in it once."""
    settings = load_settings(path, {})
    create_home(settings)
    with closing(open_store(settings, open_keys(settings).master)) as store:
        store.put("stripe", Secret(b"one"))
    asyncio.run(open_storage(settings).close())
    with recorded(settings, "test", "first use"):
        pass
    return settings
