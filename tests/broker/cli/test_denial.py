"""What `broker revoke` says of AWS sessions, which nobody can revoke."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from broker.app.home import open_storage
from broker.settings import load_settings
from tests.contracts.leases import LEASE, MINTER
from tests.contracts.revocations import child, grant

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands
    from tests.components.moto import Moto

ROLE: Final = "arn:aws:iam::123456789012:role/agent-task"


def _config(role: str) -> str:
    return json.dumps({"role_arn": role, "region": "eu-west-1"})


def _keep(broker: Commands, role: str = ROLE, mark: str = "") -> None:
    """Keep grants and what was minted for them: three sessions, a token, one of the gateway's."""
    now = time.time()
    times = {"issued_at": int(now) - 30, "expires_at": int(now) + 900}
    root = grant("r00t", "my-agent", **times)
    kept = (
        ("of-root", "r00t", (), "aws_sts", "credential", 900.0),
        ("longer", "r00t", (), "aws_sts", "credential", 3000.0),
        ("of-child", "he1ped", ("r00t",), "aws_sts", "credential", 900.0),
        ("inside", "r00t", (), "aws_sts", "proxy", 900.0),
        ("token", "r00t", (), "github_app", "credential", 900.0),
        ("others", "0ther", (), "aws_sts", "credential", 900.0),
    )

    async def keep() -> None:
        storage = open_storage(load_settings(broker.home))
        try:
            for one in (root, child("he1ped", root), grant("0ther", "ci", **times)):
                if not mark:
                    await storage.save_grant(one)
            for name, jti, line, provider, delivery, life in kept:
                lease = replace(
                    LEASE,
                    id=mark + name,
                    grant=jti,
                    ancestors=line,
                    agent="ci" if jti == "0ther" else "my-agent",
                    provider=provider,
                    config=_config(role),
                    delivery=delivery,  # type: ignore[arg-type]
                    created_at=now,
                    due_at=now + 900,
                    grant_ends_at=now + 900,
                    expires_at=now + life,
                )
                await storage.leases.open(lease, MINTER, now, 99)
                await storage.leases.minted(mark + name, b"handle", now + life, now)
                await storage.leases.delivered(mark + name, now + 900)
        finally:
            await storage.close()

    asyncio.run(keep())


def test_what_agents_still_have_is_shown_with_its_remaining_life(broker: Commands) -> None:
    _keep(broker)
    told = broker.ok("revoke", "r00t", "--json").data
    (place,) = told["outliving"]
    assert place["place"] == ROLE
    assert place["done"] is None
    assert {one["lease"]: one["grant"] for one in place["credentials"]} == {
        "of-root": "r00t",
        "longer": "r00t",
        "of-child": "he1ped",
    }
    assert all(0 < one["remaining"] <= 3000 for one in place["credentials"])
    denied = [
        identity
        for statement in place["policy"]["Statement"]
        for identity in statement["Condition"]["StringEquals"]["aws:SourceIdentity"]
    ]
    assert sorted(denied) == ["he1ped", "r00t"]


@pytest.mark.parametrize(
    ("target", "count"),
    [
        (("--agent", "my-agent"), 3),
        (("--agent", "ci"), 1),
        (("--all", "--yes"), 4),
        (("he1ped",), 1),
    ],
)
def test_each_way_to_revoke_finds_its_own(
    broker: Commands, target: tuple[str, ...], count: int
) -> None:
    _keep(broker)
    (place,) = broker.ok("revoke", *target, "--json").data["outliving"]
    assert len(place["credentials"]) == count


def test_a_grant_that_had_ended_before_is_found_too(broker: Commands) -> None:
    _keep(broker)
    broker.ok("revoke", "r00t")
    (place,) = broker.ok("revoke", "r00t", "--json").data["outliving"]
    assert len(place["credentials"]) == 3


def test_a_person_is_told_and_given_the_policy(broker: Commands) -> None:
    _keep(broker)
    told = broker.ok("revoke", "he1ped").out
    assert f"1 credential(s) of {ROLE} cannot be revoked" in told
    assert "--aws-deny writes the policy" in told
    assert "aws:SourceIdentity" not in told
    told = broker.ok("revoke", "r00t", "--aws-deny").out
    assert "the last in " in told
    line = next(line for line in told.splitlines() if line.startswith("{"))
    assert json.loads(line)["Statement"][0]["Effect"] == "Deny"


def test_nothing_is_said_where_everything_can_be_revoked(broker: Commands) -> None:
    told = broker.ok("revoke", "--all", "--yes", "--aws-deny").out
    assert "cannot be revoked" not in told
    assert broker.ok("revoke", "--all", "--yes", "--json").data["outliving"] == []


def test_it_is_put_on_the_role_by_whoever_runs_this_and_taken_off_again(
    broker: Commands, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, role = moto.user("iam:*"), moto.role("*")
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", moto.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", person.key.id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", person.key.secret)
    _keep(broker, role)
    told = broker.ok("revoke", "r00t", "--aws-deny-apply", "--reason", "lost laptop").out
    assert f"{role}: 2 grant(s) are denied there" in told
    name = role.rpartition("/")[2]
    found = moto.iam().get_role_policy(RoleName=name, PolicyName="agent-token-broker-deny")
    assert "r00t" in json.dumps(found["PolicyDocument"])
    records = [json.loads(line) for line in broker.ok("logs", "--json").out.splitlines()]
    mine = [one for one in records if one["action"] == "credential.deny"]
    assert [one["phase"] for one in mine] == ["intent", "outcome"]
    assert role in mine[0]["detail"]
    assert "denied there" in mine[1]["detail"]
    assert person.key.secret not in json.dumps(records)

    later = time.time() + 7200
    monkeypatch.setattr("broker.cli.denial.time.time", lambda: later)
    told = broker.ok("revoke", "--aws-deny-tidy").out
    assert f"{role}: nobody is denied there any more" in told
    assert moto.iam().list_role_policies(RoleName=name)["PolicyNames"] == []


def test_who_may_not_is_told_that_the_grants_are_revoked_all_the_same(
    broker: Commands, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, role = moto.user("s3:*"), moto.role("*")
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", moto.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", person.key.id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", person.key.secret)
    _keep(broker, role)
    told = broker.refused("revoke", "r00t", "--aws-deny-apply")
    assert "the grants are revoked, but nobody is denied" in told
    assert "iam:PutRolePolicy" in told
    assert {one["grant"] for one in broker.ok("sessions", "--json").data} == {"0ther"}


def test_one_role_that_cannot_be_reached_does_not_keep_others_from_being_denied(
    broker: Commands, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, role = moto.user("iam:*"), moto.role("*")
    gone = f"{role.rpartition('/')[0]}/a-gone"  # its turn comes before the other's
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", moto.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", person.key.id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", person.key.secret)
    _keep(broker, role)
    _keep(broker, gone, mark="gone-")
    told = broker.refused("revoke", "r00t", "--aws-deny-apply")
    assert f"the grants are revoked, but nobody is denied at {gone}: AWS IAM refused" in told
    assert role not in told
    name = role.rpartition("/")[2]
    found = moto.iam().get_role_policy(RoleName=name, PolicyName="agent-token-broker-deny")
    assert "r00t" in json.dumps(found["PolicyDocument"])
    told = broker.refused("revoke", "--aws-deny-tidy")
    assert f"what has expired could not be taken off {gone}: AWS IAM refused" in told
    assert "revoked" not in told


@pytest.mark.parametrize("also", [("r00t",), ("--all",), ("--aws-deny",), ("--aws-deny-apply",)])
def test_tidying_revokes_nothing(broker: Commands, also: tuple[str, ...]) -> None:
    _keep(broker)
    assert "run it alone" in broker.refused("revoke", "--aws-deny-tidy", *also)
    assert len(broker.ok("sessions", "--json").data) == 3


def test_tidying_takes_no_longer_reason_than_revoking(broker: Commands) -> None:
    told = broker.refused("revoke", "--aws-deny-tidy", "--reason", "x" * 501)
    assert "--reason must have at most 500 characters" in told


def test_tidying_where_nothing_was_opened(broker: Commands) -> None:
    assert "nothing to look at" in broker.ok("revoke", "--aws-deny-tidy").out
    assert broker.ok("revoke", "--aws-deny-tidy", "--json").data == []
