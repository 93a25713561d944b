from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from broker.errors import SecretUnavailable
from broker.files import create_private
from broker.secrets.vault.proof import private_proof, projected_proof

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

both = pytest.mark.parametrize("read", [private_proof, projected_proof])


@both
@pytest.mark.parametrize("content", [b"hvs.abc", b"hvs.abc\n", b"hvs.abc\r\n"])
def test_one_word_is_read(tmp_path: Path, read: Callable[[Path], str], content: bytes) -> None:
    create_private(tmp_path / "proof", content)
    assert read(tmp_path / "proof") == "hvs.abc"


@both
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a b", b"a\nb", b"a\r\nX-Evil: 1", b"\xff", b"a\0", b"a\n\n"], ids=repr
)
def test_anything_else_is_refused_and_not_shown(
    tmp_path: Path, read: Callable[[Path], str], content: bytes
) -> None:
    create_private(tmp_path / "proof", content)
    with pytest.raises(SecretUnavailable, match="does not hold one word of text") as caught:
        read(tmp_path / "proof")
    assert "Evil" not in str(caught.value)


@both
def test_what_is_absent_is_named(tmp_path: Path, read: Callable[[Path], str]) -> None:
    with pytest.raises(SecretUnavailable, match=r"cannot log in to Vault: .*proof: .*[Nn]o such"):
        read(tmp_path / "proof")


@both
def test_a_pipe_is_refused_without_waiting(tmp_path: Path, read: Callable[[Path], str]) -> None:
    os.mkfifo(tmp_path / "proof", 0o600)
    with pytest.raises(SecretUnavailable, match=r"no regular file|not a regular file"):
        read(tmp_path / "proof")


def test_a_secret_must_be_in_a_private_file(tmp_path: Path) -> None:
    create_private(tmp_path / "proof", b"hvs.abc")
    (tmp_path / "link").symlink_to("proof")
    with pytest.raises(SecretUnavailable, match="symbolic link"):
        private_proof(tmp_path / "link")
    (tmp_path / "proof").chmod(0o640)
    with pytest.raises(SecretUnavailable, match="chmod 600"):
        private_proof(tmp_path / "proof")


def test_a_workloads_token_is_taken_as_its_platform_puts_it(tmp_path: Path) -> None:
    create_private(tmp_path / "proof", b"eyJ.e30.x")
    (tmp_path / "proof").chmod(0o644)
    (tmp_path / "link").symlink_to("proof")
    assert projected_proof(tmp_path / "link") == "eyJ.e30.x"
