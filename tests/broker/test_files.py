from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker import files
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def append(path: Path) -> None:
    os.close(files.open_private_append(path))


WRITERS: dict[str, Callable[[Path], object]] = {
    "create": lambda path: files.create_private(path, b"new"),
    "replace": lambda path: files.replace_private(path, b"new"),
    "append": append,
    "database": files.private_database,
}
"""Whatever may bring a file into being."""

OPENERS: dict[str, Callable[[Path], object]] = {
    "read": files.read_private,
    **{name: writer for name, writer in WRITERS.items() if name != "create"},
}
"""Whatever accepts a file that is there already."""

writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
openers = pytest.mark.parametrize("open_", OPENERS.values(), ids=OPENERS)


@writers
@pytest.mark.usefixtures("umask")
def test_a_new_file_is_owner_only_whatever_the_umask(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    write(tmp_path / "file")
    assert mode(tmp_path / "file") == 0o600


@pytest.mark.usefixtures("umask")
def test_a_new_directory_is_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    files.private_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.create_private(path, b"\x00one\n")
    assert files.read_private(path) == b"\x00one\n"
    files.replace_private(path, b"two")
    assert files.read_private(path) == b"two"
    descriptor = files.open_private_append(path)
    os.write(descriptor, b"+three")
    os.close(descriptor)
    assert files.read_private(path) == b"two+three"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_create_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.create_private(path, b"first")
    with pytest.raises(ConfigurationError, match="there already"):
        files.create_private(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_database_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "db"
    files.create_private(path, b"pages")
    files.private_database(path)
    assert path.read_bytes() == b"pages"


@writers
@pytest.mark.parametrize("target", ["dangling", "file", "directory"])
def test_nothing_is_written_through_a_symbolic_link(
    tmp_path: Path, write: Callable[[Path], object], target: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if target == "file":
        files.create_private(elsewhere, b"theirs")
    elif target == "directory":
        elsewhere.mkdir()
    link = tmp_path / "file"
    link.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match=r"symbolic link|there already"):
        write(link)
    assert link.is_symlink()
    if target == "file":
        assert elsewhere.read_bytes() == b"theirs"
    assert (target == "dangling") is not elsewhere.exists()


@openers
def test_a_symbolic_link_is_refused(tmp_path: Path, open_: Callable[[Path], object]) -> None:
    files.create_private(tmp_path / "real", b"key")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        open_(tmp_path / "link")


@openers
def test_a_second_name_for_the_file_is_refused(
    tmp_path: Path, open_: Callable[[Path], object]
) -> None:
    files.create_private(tmp_path / "file", b"key")
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="2 hard links"):
        open_(tmp_path / "file")


@openers
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o777], ids=oct)
def test_a_file_open_to_others_is_refused_with_the_remedy(
    tmp_path: Path, open_: Callable[[Path], object], bits: int
) -> None:
    path = tmp_path / "file"
    files.create_private(path, b"key")
    path.chmod(bits)
    with pytest.raises(ConfigurationError, match=f"mode {bits:04o}.*chmod 600 {path}"):
        open_(path)


@openers
def test_a_file_of_another_user_is_refused(
    tmp_path: Path, open_: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.create_private(path, b"key")
    owner = path.stat().st_uid
    become(monkeypatch, owner + 1, keep=tmp_path)
    with pytest.raises(ConfigurationError, match=f"belongs to user {owner}"):
        open_(path)


def become(monkeypatch: pytest.MonkeyPatch, user: int, *, keep: Path) -> None:
    """Look like `user` from here on, as the owner of `keep` and of nothing else."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    real = os.fstat
    ours = keep.stat().st_ino

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino != ours:
            return status
        return os.stat_result((*status[:4], user, *status[5:]))

    monkeypatch.setattr(os, "fstat", fstat)


@pytest.mark.parametrize("kind", ["directory", "pipe", "socket"])
@openers
def test_what_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, open_: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "x"
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        if kind == "directory":
            path.mkdir(mode=0o700)
        elif kind == "pipe":
            os.mkfifo(path, 0o600)
        else:
            listener.bind(str(path))
        with pytest.raises(ConfigurationError, match=r"directory|pipe|socket"):
            open_(path)


@openers
@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777], ids=oct)
def test_a_directory_in_which_others_write_is_refused(
    tmp_path: Path, open_: Callable[[Path], object], bits: int
) -> None:
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    files.create_private(directory / "file", b"key")
    directory.chmod(bits)
    with pytest.raises(ConfigurationError, match=f"chmod go-w {directory}"):
        open_(directory / "file")
    directory.chmod(bits | stat.S_ISVTX)
    open_(directory / "file")


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    if os.geteuid() == ROOT:
        os.chown(directory, 4242, 4242)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigurationError, match="belongs to user"):
        files.create_private(directory / "file", b"key")
    assert not list(directory.iterdir())


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o777], ids=oct)
def test_a_private_directory_open_to_others_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "home"
    path.mkdir()
    path.chmod(bits)
    with pytest.raises(ConfigurationError, match=f"chmod 700 {path}"):
        files.private_directory(path)
    assert mode(path) == bits


def test_a_private_directory_is_no_link_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        files.private_directory(tmp_path / "link")
    files.create_private(tmp_path / "file", b"")
    with pytest.raises(ConfigurationError, match="Not a directory"):
        files.private_directory(tmp_path / "file")


def test_a_private_directory_may_be_there_already(tmp_path: Path) -> None:
    files.private_directory(tmp_path / "home")
    files.private_directory(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o700


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_link_beside_the_database_is_refused(tmp_path: Path, suffix: str) -> None:
    files.private_database(tmp_path / "db")
    (tmp_path / f"db{suffix}").symlink_to("elsewhere")
    with pytest.raises(ConfigurationError, match=f"db{suffix}: is a symbolic link"):
        files.private_database(tmp_path / "db")


def test_reading_says_that_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        files.read_private(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        files.read_private(tmp_path / "absent" / "file")


def test_reading_is_bounded(tmp_path: Path) -> None:
    files.create_private(tmp_path / "file", b"x" * 11)
    assert len(files.read_private(tmp_path / "file", max_bytes=11)) == 11
    with pytest.raises(ConfigurationError, match="more than 10 bytes"):
        files.read_private(tmp_path / "file", max_bytes=10)


@pytest.mark.parametrize("path", ["/", "..", "."])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        files.read_private(Path(path))


def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    files.create_private(tmp_path / "old", b"old")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigurationError, match=r"write .*new: No space left"):
        files.create_private(tmp_path / "new", b"data")
    with pytest.raises(ConfigurationError, match=r"write .*old: No space left"):
        files.replace_private(tmp_path / "old", b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_replacement_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(5, "Input/output error")

    files.create_private(tmp_path / "old", b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigurationError, match=r"replace .*old: Input/output error"):
        files.replace_private(tmp_path / "old", b"data")
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
