from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.cli.conftest import Commands, Ran

CREATE = ("admin", "token", "create")
TOKEN = re.compile(r"atbadm_[0-9a-f]{12}_[0-9a-f]{64}")


def create(broker: Commands, name: str = "ci", *more: str) -> Ran:
    return broker.ok(*CREATE, name, "--expires", "30d", "--can", "policy:read,policy:write", *more)


def test_a_token_is_shown_once_and_never_again(broker: Commands) -> None:
    made = create(broker)
    token = made.out.strip()
    assert TOKEN.fullmatch(token)
    assert "It is not shown again" in made.err
    assert "The admin API is off: set port" in made.err
    listed = broker.ok("admin", "token", "list")
    assert "ci" in listed.out
    assert "policy:read policy:write" in listed.out
    everything = listed.out + broker.ok("logs").out + broker.ok("logs", "--json").out
    secret = token.rpartition("_")[2]
    assert secret not in everything
    for path in broker.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_token_as_json(broker: Commands) -> None:
    data = create(broker, "ci", "--json").data
    assert TOKEN.fullmatch(data["token"])
    assert (data["name"], data["state"]) == ("ci", "good")
    assert data["expires_at"] - data["created_at"] == 30 * 86_400
    (listed,) = broker.ok("admin", "token", "list", "--json").data
    assert listed == {name: value for name, value in data.items() if name != "token"}


def test_a_token_in_a_private_file(broker: Commands, tmp_path: Path) -> None:
    path = tmp_path / "token"
    made = create(broker, "ci", "--to", str(path))
    assert TOKEN.fullmatch(path.read_text().strip())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not TOKEN.search(made.out + made.err)
    again = create(broker, "other", "--json", "--to", str(tmp_path / "other"))
    assert "token" not in again.data
    assert "is not overwritten" in broker.refused(
        *CREATE, "third", "--expires", "1d", "--can", "policy:read", "--to", str(path)
    )


@pytest.mark.parametrize("place", ["taken", "nowhere/token"])
def test_a_token_that_cannot_be_written_is_not_made(
    broker: Commands, tmp_path: Path, place: str
) -> None:
    (tmp_path / "taken").write_text("something else")
    options = ("--expires", "1d", "--can", "policy:read", "--to", str(tmp_path / place))
    broker.refused(*CREATE, "ci", *options)
    assert broker.ok("admin", "token", "list", "--json").data == []
    assert (tmp_path / "taken").read_text() == "something else"


def test_a_token_that_is_not_made_leaves_no_file(broker: Commands, tmp_path: Path) -> None:
    create(broker, "ci")
    path = tmp_path / "token"
    options = ("--expires", "1d", "--can", "policy:read", "--to", str(path))
    assert "a good token called ci already" in broker.refused(*CREATE, "ci", *options)
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ci", "--expires", "soon", "--can", "policy:read"), "a duration such as"),
        (("ci", "--expires", "400d", "--can", "policy:read"), "within 366 days"),
        (("ci", "--expires", "1d", "--can", "policy:wrte"), "did you mean 'policy:write'?"),
        (("ci", "--expires", "1d", "--can", ""), "there is no permission ''"),
        (("C I", "--expires", "1d", "--can", "policy:read"), "the name of a token"),
    ],
)
def test_what_cannot_be_made_is_told(
    broker: Commands, arguments: tuple[str, ...], told: str
) -> None:
    assert told in broker.refused(*CREATE, *arguments)
    assert broker.ok("admin", "token", "list", "--json").data == []


def test_expiry_and_permissions_must_be_given(broker: Commands) -> None:
    assert broker.run(*CREATE, "ci", "--can", "policy:read").status == 2
    assert broker.run(*CREATE, "ci", "--expires", "1d").status == 2


def test_a_name_has_one_good_token(broker: Commands) -> None:
    create(broker)
    refused = broker.refused(*CREATE, "ci", "--expires", "1d", "--can", "policy:read")
    assert "broker admin token revoke ci" in refused
    broker.ok("admin", "token", "revoke", "ci")
    create(broker)
    states = [one["state"] for one in broker.ok("admin", "token", "list", "--json").data]
    assert sorted(states) == ["good", "revoked"]


def test_revoking_is_told_and_recorded(broker: Commands) -> None:
    token_id = create(broker, "ci", "--json").data["id"]
    assert "did you mean 'ci'?" in broker.refused("admin", "token", "revoke", "cii")
    assert f"Revoked: ci ({token_id})" in broker.ok("admin", "token", "revoke", token_id).out
    assert "no good token" in broker.refused("admin", "token", "revoke", "ci")
    actions = [line.split(" | ")[3] for line in broker.ok("logs").out.splitlines()]
    assert actions == ["admin_token.create", "admin_token.revoke"]


def test_no_token_is_said(broker: Commands) -> None:
    assert "broker admin token create" in broker.ok("admin", "token", "list").out


def test_without_a_home_nothing_is_made(bare: Commands) -> None:
    assert "broker init" in bare.refused(*CREATE, "ci", "--expires", "1d", "--can", "policy:read")
    assert not bare.home.exists()
