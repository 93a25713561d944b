"""Files that hold secrets or records: owner-only, whatever the umask, and never through a link.

Each check is made on the descriptor that is then used, so that nothing can be swapped between
the look and the use. A path's last directory must belong to this user or to root and must not
be writable by others: whoever can write there could put another file in the place of ours.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
MAX_FILE_BYTES: Final = 1 << 20

_WIDER_THAN_OWNER: Final = 0o077
_WRITABLE_BY_OTHERS: Final = 0o022
# O_NONBLOCK: opening a FIFO in the place of our file must fail or return, never wait.
_SAFE_OPEN: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_OPEN
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def create_private(path: Path, data: bytes) -> None:
    """Create `path` with `data`, mode 0600, durably.

    Raises `ConfigurationError` if anything is there already, a dangling link included.
    """
    with _parent(path) as directory:
        try:
            _write_new(directory, path.name, path, data)
        except FileExistsError:
            raise ConfigurationError(
                f"{path}: something is there already, and it is not overwritten; "
                "move it away first if it is no longer needed"
            ) from None
        os.fsync(directory)


def replace_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of what `path` holds, atomically, durably, mode 0600.

    `path` may be absent. Raises `ConfigurationError` if what is there is not a private file.
    """
    with _parent(path) as directory:
        with suppress(FileNotFoundError), _existing(directory, path, os.O_RDONLY):
            pass
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        _write_new(directory, temporary, path, data)
        try:
            os.replace(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            os.unlink(temporary, dir_fd=directory)
            raise _cannot("replace", path, error) from None
        os.fsync(directory)


def read_private(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return what `path` holds.

    Raises `ConfigurationError` if it is absent, longer than `max_bytes`, a link, anything but
    a regular file, another user's, or open to group or others.
    """
    with _parent(path) as directory:
        try:
            with _existing(directory, path, os.O_RDONLY) as descriptor:
                data = _read(descriptor, max_bytes + 1)
        except FileNotFoundError:
            raise ConfigurationError(f"{path}: there is no such file") from None
    if len(data) > max_bytes:
        raise ConfigurationError(f"{path}: holds more than {max_bytes} bytes")
    return data


def open_private_append(path: Path) -> int:
    """Open `path` for appending, creating it with mode 0600 if it is absent.

    Returns a descriptor that the caller closes. Raises `ConfigurationError` as `read_private`
    does.
    """
    with _parent(path) as directory:
        while True:
            try:
                descriptor = os.open(
                    path.name, _NEW_FILE | os.O_APPEND, FILE_MODE, dir_fd=directory
                )
            except FileExistsError:
                with suppress(FileNotFoundError):  # removed meanwhile: try to create it again
                    return _open_existing(directory, path, os.O_WRONLY | os.O_APPEND)
            except OSError as error:
                raise _cannot("create", path, error) from None
            else:
                os.fchmod(descriptor, FILE_MODE)
                os.fsync(directory)
                return descriptor


def private_database(path: Path) -> None:
    """Make sure that a library which opens `path` by name finds a private file there.

    Creates an empty file if it is absent. SQLite gives its `-wal`, `-shm` and `-journal` files
    the mode of the database; those that exist are checked too. The directory's own checks keep
    the answer true until the library opens the file. Raises `ConfigurationError` as
    `read_private` does.
    """
    with _parent(path) as directory:
        try:
            _write_new(directory, path.name, path, b"")
        except FileExistsError:
            # Looked at, and not opened: closing any descriptor of a database drops the locks
            # that this process holds on it (POSIX advisory locks).
            for suffix in ("", "-wal", "-shm", "-journal"):
                name = path.name + suffix
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    _check_file(path.with_name(name), status)
        else:
            os.fsync(directory)


def private_directory(path: Path) -> None:
    """Make sure that `path` is this user's directory of mode 0700; create it if it is absent.

    Missing parents are created alike. Raises `ConfigurationError` if it is a link, another
    user's, or open to group or others: what was readable once is not made secret by a chmod
    that nobody noticed.
    """
    if not path.parent.exists():
        private_directory(path.parent)
    with _parent(path) as parent:
        try:
            os.mkdir(path.name, DIRECTORY_MODE, dir_fd=parent)
            created = True
        except FileExistsError:
            created = False
        except OSError as error:
            raise _cannot("create", path, error) from None
        try:
            descriptor = os.open(path.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            raise _cannot("open", path, error) from None
        try:
            if created:
                os.fchmod(descriptor, DIRECTORY_MODE)  # a umask may have taken bits away
                os.fsync(parent)
            _check_private(path, os.fstat(descriptor), DIRECTORY_MODE)
        finally:
            os.close(descriptor)


@contextmanager
def _parent(path: Path) -> Iterator[int]:
    """Open the directory that holds `path`, refusing one in which others may put files."""
    if path.name in {"", ".."}:
        raise ConfigurationError(f"{path}: names no file")
    try:
        descriptor = os.open(path.parent, _DIRECTORY)
    except OSError as error:
        raise _cannot("open the directory of", path, error) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in {os.geteuid(), 0}:
            raise ConfigurationError(
                f"{path.parent}: belongs to user {status.st_uid}, and not to user "
                f"{os.geteuid()} or root; keep secret files in a directory of your own"
            )
        # In a sticky directory such as /tmp nobody can move or remove the files of others.
        if status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"{path.parent}: others may write to it (mode {_mode(status)}), so they could "
                f"replace {path.name}; run: chmod go-w {path.parent}"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _write_new(directory: int, name: str, path: Path, data: bytes) -> None:
    """Write a new file; raise FileExistsError if anything has that name, a link included."""
    try:
        descriptor = os.open(name, _NEW_FILE, FILE_MODE, dir_fd=directory)
    except FileExistsError:
        raise
    except OSError as error:
        raise _cannot("create", path, error) from None
    try:
        os.fchmod(descriptor, FILE_MODE)  # a umask may have taken bits away
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError as error:
        os.unlink(name, dir_fd=directory)  # half a key must not look like a key
        raise _cannot("write", path, error) from None
    finally:
        os.close(descriptor)


@contextmanager
def _existing(directory: int, path: Path, flags: int) -> Iterator[int]:
    descriptor = _open_existing(directory, path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_existing(directory: int, path: Path, flags: int) -> int:
    """Open the private file `path`; raise FileNotFoundError if nothing is there."""
    try:
        descriptor = os.open(path.name, flags | _SAFE_OPEN, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cannot("open", path, error) from None
    try:
        _check_file(path, os.fstat(descriptor))
    except ConfigurationError:
        os.close(descriptor)
        raise
    return descriptor


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: is a {_kind(status)}, and not a regular file")
    _check_private(path, status, FILE_MODE)
    if status.st_nlink > 1:
        raise ConfigurationError(
            f"{path}: has {status.st_nlink} hard links, so it can be reached under another "
            f"name; find it with: find / -xdev -inum {status.st_ino}"
        )


def _check_private(path: Path, status: os.stat_result, expected: int) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path}: belongs to user {status.st_uid}, and not to user {os.geteuid()} who runs "
            f"the broker; run as its owner, or: chown {os.geteuid()} {path}"
        )
    if status.st_mode & _WIDER_THAN_OWNER:
        raise ConfigurationError(
            f"{path}: group or others may use it (mode {_mode(status)}, expected "
            f"{expected:04o}); run: chmod {expected:o} {path}"
        )


def _read(descriptor: int, limit: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < limit and (chunk := os.read(descriptor, limit - len(chunks))):
        chunks += chunk
    return bytes(chunks)


def _cannot(verb: str, path: Path, error: OSError) -> ConfigurationError:
    if error.errno in {errno.ELOOP, errno.EMLINK} or (
        error.errno == errno.ENOTDIR and path.is_symlink()
    ):
        return ConfigurationError(
            f"{path}: is a symbolic link, which is not followed; put the file itself there"
        )
    if error.errno == errno.ENXIO:
        return ConfigurationError(f"{path}: is a socket or pipe, and not a regular file")
    return ConfigurationError(f"cannot {verb} {path}: {os.strerror(error.errno or errno.EIO)}")


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _kind(status: os.stat_result) -> str:
    kinds = {
        stat.S_IFLNK: "symbolic link",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "special file")
