"""deploy/compose/prepare.py: what it makes is there once, and readable by its container alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

PROGRAM = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "prepare.py"
FOLDERS = ("agent", "broker", "openbao", "postgres", "upstream")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compose")
    for folder in FOLDERS:
        (root / "files" / folder).mkdir(parents=True)
    (root / "home").mkdir(mode=0o700)
    interrupted(root / "files")
    prepare(root)
    return root / "files"


def interrupted(files: Path) -> None:
    """Leave what a run leaves that is killed while it makes certificates."""
    (files / "openbao" / "cert.pem").write_text("of an authority that nobody keeps")
    (files / "openbao" / "key.pem").touch(mode=0o600)


def prepare(root: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root / "home"),
        "FILES": str(root / "files"),
        "BROKER_ISSUER": "https://broker.example.com",
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def contents(files: Path) -> dict[str, tuple[int, bytes]]:
    found = [path for path in files.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(files)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in found
    }


def test_each_container_finds_its_own_files(files: Path) -> None:
    assert {name: oct(mode) for name, (mode, _) in contents(files).items()} == {
        "agent/demo.pem": "0o600",
        "broker/ca.pem": "0o400",
        "openbao/cert.pem": "0o640",
        "openbao/key.pem": "0o640",
        "postgres/password": "0o640",
        "upstream/api-key": "0o400",
        "upstream/cert.pem": "0o400",
        "upstream/key.pem": "0o400",
    }


def test_the_agents_key_is_not_left_with_the_broker(files: Path) -> None:
    home = files.parent / "home" / ".agent-token-broker"
    assert (home / "keys" / "master.key").exists()
    assert not list((home / "agents").iterdir())


@pytest.mark.parametrize("host", ["openbao", "upstream"])
def test_the_authority_vouches_for_a_host_and_no_other(files: Path, host: str) -> None:
    root = x509.load_pem_x509_certificate((files / "broker" / "ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificate((files / host / "cert.pem").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host]
    leaf.verify_directly_issued_by(root)


def test_a_second_run_changes_nothing(files: Path) -> None:
    before = contents(files)
    prepare(files.parent)
    assert contents(files) == before
