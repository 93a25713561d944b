from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from broker.errors import StorageError
from broker.same_file import SameFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def test_what_is_done_to_the_file_itself_does_not_matter(path: Path) -> None:
    same = SameFile(path)
    path.write_text("other content")
    path.chmod(0o400)
    os.utime(path, (1, 1))
    same.require()


def test_another_directory_to_work_in_does_not_matter(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    same = SameFile(path.relative_to(path.parent))
    monkeypatch.chdir("/")
    same.require()


@pytest.mark.parametrize("what", ["moved", "removed", "replaced"])
def test_c3_what_is_put_in_its_place_is_noticed(path: Path, what: str) -> None:
    same = SameFile(path)
    other = path.with_name("other")
    if what == "moved":
        path.rename(other)
    elif what == "removed":
        path.unlink()
    else:
        other.write_text("one")
        other.replace(path)
    with pytest.raises(StorageError, match=r"file: is not the file any more.*start the broker"):
        same.require()
