"""A GitHub token that no agent sees: minted when it is needed, used by the gateway, and ended."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.components.process import children, wait_until
from tests.integration.github_broker import github_home
from tests.integration.running_broker import RunningBroker, running_broker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.components.github import AppKey, GithubContract

PATH = "/github/installation/repositories"


def ask(broker: RunningBroker, token: str) -> int:
    """Call GitHub through the gateway, and return the status."""
    headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
    return broker.http.get(f"{broker.home.gateway_url}{PATH}", headers=headers).status_code


@pytest.mark.timeout(120)
def test_it_ends_with_its_grant_and_with_the_broker(
    github_contract: GithubContract, app_key: AppKey, tmp_path: Path
) -> None:
    with github_home(tmp_path, github_contract, app_key) as (home, github):
        with running_broker(home) as broker:
            ended, kept = (home.run("token", "--scope", "repo.list").strip() for _ in range(2))
            assert [ask(broker, one) for one in (ended, kept, ended)] == [200] * 3
            assert len(github.live) == 2
            leases = json.loads(home.run("leases", "--json"))
            assert {one["state"] for one in leases} == {"used"}
            home.run("revoke", leases[0]["grant"], "--yes")
            wait_until(lambda: len(github.live) == 1, "the token to be revoked", 30)
            assert sorted(ask(broker, one) for one in (ended, kept)) == [200, 401]
            held = set(github.live)
            told = home.run("logs", "--json") + (home.path.parent / "output.log").read_text()
        assert github.live == {}  # before the broker has stopped
        assert not any(token in told for token in held)
        states = [one["state"] for one in json.loads(home.run("leases", "--all", "--json"))]
        assert states == ["revoked", "revoked"]


@pytest.mark.timeout(180)
def test_r1_what_workers_used_that_were_killed_is_ended_by_those_who_follow(
    github_contract: GithubContract, app_key: AppKey, tmp_path: Path
) -> None:
    with (
        github_home(tmp_path, github_contract, app_key) as (home, github),
        running_broker(home, "--workers", "2") as broker,
    ):
        token = home.run("token", "--scope", "repo.list").strip()
        for _ in range(20):  # each on a connection of its own, and so by either worker
            with httpx.Client(trust_env=False) as alone:
                assert ask(RunningBroker(home, alone, 0), token) == 200
        before = set(github.live)
        assert 1 <= len(before) <= 2  # one a worker
        for worker in children(broker.process):
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not before & set(github.live), "what they used to be revoked", 60)
        wait_until(lambda: _answers(broker, token), "other workers", 30)
        assert set(github.live)


def _answers(broker: RunningBroker, token: str) -> bool:
    try:
        return ask(broker, token) == 200
    except httpx.TransportError:
        return False
