from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.broker.cli.conftest import Commands


@pytest.fixture
def _umask_000() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask_000")
def test_everything_is_the_owners_alone_whatever_the_umask(bare: Commands) -> None:
    bare.ok("init", "--yes")
    bare.ok("add", "stripe", "--secret-stdin", stdin="sk_test_1\n")
    bare.ok("agents", "enroll", "second", "--scope", "stripe.read")
    for path in [bare.home, *bare.home.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_says_what_it_made_and_what_comes_next(bare: Commands) -> None:
    ran = bare.ok("init", "--yes")
    for part in ("keys/master.key", "agents/my-agent.pem", "broker add stripe", "broker serve"):
        assert part in ran.out
    assert (bare.home / "keys/master.key").read_text().strip() not in ran.out


def test_tells_programs_in_json(bare: Commands) -> None:
    data = bare.ok("init", "--json", "--agent", "release-bot").data
    assert data["agent"] == "release-bot"
    assert str(bare.home / "agents/release-bot.pem") in data["made"]


def test_a_second_time_changes_nothing(broker: Commands) -> None:
    before = broker.files()
    assert "already" in broker.refused("init", "--yes", "--agent", "another")
    assert broker.files() == before


def test_what_is_missing_is_made_and_the_rest_kept(broker: Commands) -> None:
    before = broker.files()
    (broker.home / "keys/audit.sealed").unlink()
    assert "keys/audit.sealed" in broker.ok("init", "--yes").out
    after = broker.files()
    assert after.keys() == before.keys()
    assert [path.name for path in after if after[path] != before[path]] == ["audit.sealed"]


def test_a_lost_master_key_is_not_replaced(broker: Commands) -> None:
    (broker.home / "keys/master.key").unlink()
    (broker.home / "keys/audit.sealed").unlink()
    assert "there is no master key" in broker.refused("init", "--yes")
    assert not (broker.home / "keys/master.key").exists()


def test_a_master_key_that_is_none_is_not_replaced(bare: Commands) -> None:
    (bare.home / "keys").mkdir(parents=True)
    for directory in (bare.home, bare.home / "keys"):
        directory.chmod(0o700)
    key = bare.home / "keys/master.key"
    key.write_text("not a key\n")
    key.chmod(0o600)
    assert "is not a master key" in bare.refused("init", "--yes")
    assert key.read_text() == "not a key\n"


def test_a_linked_home_is_refused(bare: Commands, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    bare.home.symlink_to(real)
    assert "symbolic link" in bare.refused("init", "--yes")
    assert not list(real.iterdir())


def test_an_open_home_is_refused(bare: Commands) -> None:
    bare.home.mkdir()
    bare.home.chmod(0o755)
    assert f"chmod 700 {bare.home}" in bare.refused("init", "--yes")


@pytest.mark.parametrize("name", ["../x", "A B", "", "-", "x" * 65])
def test_an_agent_needs_a_name(bare: Commands, name: str) -> None:
    assert "cannot be the name of an agent" in bare.refused("init", "--agent", name)
    assert not bare.home.exists()


def test_the_master_key_may_come_from_the_environment(
    bare: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_MASTER_KEY", "A" * 43 + "=")
    bare.ok("init", "--yes", "--master-key", "environment")
    assert not (bare.home / "keys/master.key").exists()
    assert "BROKER_MASTER_KEY" not in os.environ
    assert 'master_key_source = "environment"' in (bare.home / "broker.toml").read_text()


def test_an_unknown_place_for_the_master_key_is_refused(bare: Commands) -> None:
    assert "did you mean 'keyring'" in bare.refused("init", "--master-key", "keyrng")
    assert not bare.home.exists()
