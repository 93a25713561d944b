"""C1: umask 000; a symlinked or existing key, database, socket: refused."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from broker.app.home import create_home, open_keys
from broker.errors import AuditUnavailable, ConfigurationError
from broker.settings import Settings, load_settings
from tests.attacks.used_home import KEPT, Kept, used_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

every_file = pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return used_home(tmp_path / "home")


@every_file
def test_c1_a_link_in_the_place_of_a_file_is_refused(settings: Settings, kept: Kept) -> None:
    path = kept.path(settings.home)
    elsewhere = settings.home.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises((ConfigurationError, AuditUnavailable), match=r"symbolic link"):
        kept.open(settings)


@every_file
def test_c1_a_second_name_for_a_file_is_refused(settings: Settings, kept: Kept) -> None:
    (settings.home.parent / "elsewhere").hardlink_to(kept.path(settings.home))
    with pytest.raises((ConfigurationError, AuditUnavailable), match="2 hard links"):
        kept.open(settings)


@every_file
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o622], ids=oct)
def test_c1_a_file_open_to_others_is_refused(settings: Settings, kept: Kept, bits: int) -> None:
    kept.path(settings.home).chmod(bits)
    with pytest.raises((ConfigurationError, AuditUnavailable), match=f"mode {bits:04o}.*chmod 600"):
        kept.open(settings)


@pytest.mark.parametrize(
    "kept", [pytest.param(kept, id=name) for name, kept in KEPT.items() if name != "trail"]
)
@pytest.mark.parametrize("kind", ["socket", "pipe", "directory"])
def test_c1_what_is_no_file_is_refused_without_waiting(
    settings: Settings, kept: Kept, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept.path(settings.home)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            monkeypatch.chdir(path.parent)  # a socket's address is short, and a test's path is not
            listener.bind(path.name)
            path.chmod(0o600)
        elif kind == "pipe":
            os.mkfifo(path, 0o600)
        else:
            path.mkdir(mode=0o700)
        with pytest.raises((ConfigurationError, AuditUnavailable), match=r"socket|pipe|directory"):
            kept.open(settings)


PLANTED = {
    "dangling link": lambda path: path.symlink_to(path.parent.parent.parent / "elsewhere"),
    "file": lambda path: path.write_bytes(b"planted"),
    "directory": lambda path: path.mkdir(),
}


def set_up_and_open(settings: Settings) -> None:
    create_home(settings)
    open_keys(settings)


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("name", ["master.key", "signing.sealed", "audit.sealed"])
def test_c1_a_key_planted_before_the_first_start_is_neither_used_nor_followed(
    tmp_path: Path, plant: Callable[[Path], object], name: str
) -> None:
    settings = load_settings(tmp_path / "home", {})
    keys = settings.home / "keys"
    keys.mkdir(parents=True, mode=0o700)
    settings.home.chmod(0o700)
    plant(keys / name)
    with pytest.raises(ConfigurationError):
        set_up_and_open(settings)
    assert not (tmp_path / "elsewhere").exists()
    if (keys / name).is_file():
        assert (keys / name).read_bytes() == b"planted"


def test_c1_setting_up_again_overwrites_no_key(settings: Settings) -> None:
    before = {path: path.read_bytes() for path in (settings.home / "keys").iterdir()}
    assert create_home(settings) == ()
    assert {path: path.read_bytes() for path in (settings.home / "keys").iterdir()} == before


@pytest.mark.parametrize("bits", [0o750, 0o770, 0o707, 0o777], ids=oct)
def test_c1_a_home_open_to_others_is_refused(settings: Settings, bits: int) -> None:
    settings.home.chmod(bits)
    with pytest.raises(ConfigurationError, match=f"chmod 700 {settings.home}"):
        open_keys(settings)
    with pytest.raises(ConfigurationError, match=f"chmod 700 {settings.home}"):
        create_home(settings)


def test_c1_a_home_that_is_a_link_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(settings.home)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        open_keys(load_settings(tmp_path / "link", {}))
