from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.errors import SecretUnavailable
from broker.files import create_private, replace_private
from broker.secrets.base import MAX_SECRET_BYTES
from broker.secrets.file import FileBackend, without_line_ending
from tests.contracts.secrets import VALUE, Kept, SecretBackendContract

if TYPE_CHECKING:
    from pathlib import Path


class TestFileBackend(SecretBackendContract):
    @pytest.fixture
    def kept(self, tmp_path: Path) -> Kept:
        path = tmp_path / "key"
        create_private(path, VALUE + b"\n")

        async def rotate(value: bytes) -> None:
            replace_private(path, value)

        return Kept(
            backend=FileBackend(),
            rest=str(path),
            absent=str(tmp_path / "absent"),
            malformed=("relative/path", "~/key", "/a/../key", "/a//key", "/a/./key", "/a/"),
            rotate=rotate,
        )


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o666, 0o777], ids=oct)
async def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    create_private(path, VALUE)
    path.chmod(mode)
    with pytest.raises(SecretUnavailable, match=f"mode {mode:04o}.* chmod 600 {path}") as caught:
        await FileBackend().read(str(path))
    assert not caught.value.retryable


async def test_a_read_only_file_will_do(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_private(path, VALUE)
    path.chmod(0o400)
    assert (await FileBackend().read(str(path))).secret.reveal() == VALUE


async def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    create_private(tmp_path / "real", VALUE)
    (tmp_path / "key").symlink_to("real")
    with pytest.raises(SecretUnavailable, match="symbolic link"):
        await FileBackend().read(str(tmp_path / "key"))


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"key", b"key"),
        (b"key\n", b"key"),
        (b"key\r\n", b"key"),
        (b"key\n\n", b"key\n"),
        (b"key\r", b"key\r"),
        (b" key \n", b" key "),
        (b"a\nb\n", b"a\nb"),
        (b"\xff\x00\n", b"\xff\x00"),
    ],
)
def test_one_line_ending_is_not_part_of_the_secret(content: bytes, value: bytes) -> None:
    assert without_line_ending(content) == value


@pytest.mark.parametrize("content", [b"", b"\n"])
async def test_an_empty_file_is_no_secret(tmp_path: Path, content: bytes) -> None:
    create_private(tmp_path / "key", content)
    with pytest.raises(SecretUnavailable, match="is empty"):
        await FileBackend().read(str(tmp_path / "key"))


async def test_an_endless_file_is_no_secret(tmp_path: Path) -> None:
    create_private(tmp_path / "key", b"x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(SecretUnavailable, match=f"more than {MAX_SECRET_BYTES} bytes"):
        await FileBackend().read(str(tmp_path / "key"))
