"""R1: kill -9 before and after every step of minting and of ending, and nothing is unknown after.

A broker that stops at each step in turn (`mortal_broker`), before a real OpenBao with a real
PostgreSQL, a GitHub, and moto's STS. What is asserted is what these say themselves: which users,
leases and tokens live, which sessions were opened.

`KILL_ROUNDS` says how often; every round kills at each step of each upstream once.
"""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from broker.identity.local import client_assertion
from providers.base import Secret
from tests.components.moto import REGION
from tests.components.process import serving, wait_until
from tests.integration.github_broker import github_home
from tests.integration.running_broker import COMMAND, BrokerHome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.github import AppKey, GithubContract
    from tests.components.moto import Moto, User
    from tests.components.openbao import OpenBao
    from tests.components.postgres import Postgres
    from tests.fakes.github import FakeGithub

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "1"))
CONVERGENCE: Final = 60.0
"""The most seconds after a restart until nothing is unknown."""

POLICY: Final = """
services:
  orders-db: {{provider: vault_dynamic, mount: {mount}}}
  aws:
    provider: aws_sts
    role_arn: {role}
    region: {region}
    endpoint_url: {moto}
    insecure_http: true
    credentials:
      type: keys
      access_key_id: "embedded:aws-id"
      secret_access_key: "embedded:aws-key"
scopes:
  orders.brief: {{service: orders-db, delivery: [credential], path: creds/brief}}
  artifacts.read:
    service: aws
    delivery: [credential]
    session_policy:
      - {{effect: Allow, actions: ["s3:GetObject"], resources: ["arn:aws:s3:::artifacts/*"]}}
agents:
  killer:
    trust: [{{source: local, claims: {{sub: killer}}}}]
    scopes: [orders.brief, artifacts.read, repo.write, repo.list]
"""
VAULT, AWS, HANDED, KEPT = "orders.brief", "artifacts.read", "repo.write", "repo.list"
SIDES: Final = ("before", "after")
MINTING: Final = {
    VAULT: "intent open hold held mint renew minted outcome answer delivered",
    AWS: "intent open mint minted outcome answer delivered",
    HANDED: "intent open mint minted outcome answer delivered",
    KEPT: "intent open mint minted outcome use",
}
ENDING: Final = {VAULT: "end close", HANDED: "end close", KEPT: "end close", AWS: "end retry"}
ASSERTED: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass
class Site:
    """A broker's home, what stands behind it, and what its callers got, by lease.

    Each grant has a task of its own, by which STS names its session: `tasks` has the grants.
    """

    home: BrokerHome
    openbao: OpenBao
    postgres: Postgres
    github: FakeGithub
    moto: Moto
    mount: str
    role: str
    delivered: dict[str, dict[str, str]] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> Path:
        """Where the steps at which the broker is to stop are said."""
        return self.home.path.parent / "steps"

    @contextmanager
    def broker(self, *command: str) -> Iterator[int]:
        """Run a broker until the block ends, if it is not killed; yield its process id."""

        def ready() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"{self.home.control_url}/readyz", trust_env=False).is_success
            return False

        with serving(
            [*(command or (COMMAND,)), "serve"],
            ready,
            directory=self.home.path.parent,
            environment=self.home.environment,
        ) as process:
            yield process.pid
            if command:
                process.kill()

    @contextmanager
    def mortal(self) -> Iterator[None]:
        """Run a broker that stops where it is told, and kill it at the end of the block."""
        self.steps.mkdir()
        environment = {**self.home.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
        python = str(Path(COMMAND).with_name("python"))
        mortal = BrokerHome(self.home.path, environment)
        site = Site(**{**vars(self), "home": mortal})
        with site.broker(python, "-m", "tests.attacks.mortal_broker"):
            yield
        for file in self.steps.iterdir():
            file.unlink()
        self.steps.rmdir()

    def arm(self, moment: str) -> None:
        """Have whoever comes to this moment next stop there."""
        (self.steps / moment).touch()

    def wait_until_held(self, *moments: str) -> None:
        """Return once somebody has stopped at each."""
        wait_until(
            lambda: all((self.steps / f"held.{moment}").exists() for moment in moments),
            f"whoever should stop at {', '.join(moments)}",
            60,
        )

    def token(self, scope: str) -> str:
        """Return a task token of a new grant."""
        key = Secret((self.home.path / "agents" / "killer.pem").read_bytes())
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTED,
            "client_assertion": client_assertion(key, "killer", self.home.control_url),
            "scope": scope,
            "task": token_hex(8),
        }
        url = f"{self.home.control_url}/token"
        answer = httpx.post(url, data=form, trust_env=False, timeout=60)
        token: str = answer.json()["access_token"]
        claims = token.split(".")[1]
        jti = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"]
        self.tasks[form["task"]] = jti
        return token

    def ask(self, scope: str, token: str) -> httpx.Response:
        """Use a scope once, and keep what comes of it."""
        headers = {"Authorization": f"Bearer {token}"}
        if scope == KEPT:
            url = f"{self.home.gateway_url}/github/installation/repositories"
            headers["X-GitHub-Api-Version"] = "2022-11-28"
            return httpx.get(url, headers=headers, trust_env=False, timeout=120)
        response = httpx.post(
            f"{self.home.control_url}/credentials",
            json={"scope": scope},
            headers=headers,
            timeout=120,
            trust_env=False,
        )
        if response.is_success:
            self.delivered[response.json()["lease"]] = response.json()["credential"]
        return response

    def revoke(self, token: str) -> None:
        """End a grant, by its own token."""
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.home.control_url}/revoke"
        answer = httpx.post(url, data={"token": token}, headers=headers, trust_env=False)
        assert answer.is_success, answer.text

    def ask_apart(self, scope: str) -> threading.Thread:
        """Ask in a thread of its own; a broker that dies meanwhile is no failure."""
        token = self.token(scope)

        def ask() -> None:
            with suppress(httpx.TransportError):
                self.ask(scope, token)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def leases(self) -> list[dict[str, Any]]:
        """Return every lease that there has been, as a person is shown them."""
        shown: list[dict[str, Any]] = json.loads(self.home.run("leases", "--all", "--json"))
        return shown

    def settled(self) -> bool:
        """Say whether each credential is delivered, over, or pending and visibly so."""
        leases = self.leases()
        return all(
            one["state"] in {"delivered", "revoked", "expired"} or _pending(one) for one in leases
        )

    def sessions(self) -> set[str]:
        """Return the grants that moto has opened a session for; it forgets none."""
        answer = httpx.get(f"{self.moto.url}/moto-api/data.json", trust_env=False, timeout=60)
        own = (one for one in answer.json()["sts"]["AssumedRole"] if one["role_arn"] == self.role)
        return {self.tasks[one["session_name"].partition("@")[2]] for one in own}

    def vault_leases(self) -> int:
        """Return how many credentials OpenBao knows of."""
        listed: Any = self.openbao.admin.list(f"sys/leases/lookup/{self.mount}/creds/brief")
        return len(listed["data"]["keys"]) if listed else 0


def _pending(lease: dict[str, Any]) -> bool:
    """Say whether a lease is not over, and says why: it cannot be ended, or perhaps never was."""
    return lease["state"] in {"intent", "revoking", "unrevocable"} and bool(lease["problem"])


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    openbao: OpenBao = request.getfixturevalue("sealable_openbao")
    postgres: Postgres = request.getfixturevalue("postgres")
    moto: Moto = request.getfixturevalue("moto")
    contract: GithubContract = request.getfixturevalue("github_contract")
    key: AppKey = request.getfixturevalue("app_key")
    for user in postgres.users():
        postgres.query(f'DROP ROLE "{user}"')
    mount = openbao.database(postgres, brief={"default_ttl": "1m", "max_ttl": "1h"})
    rights = (Path(__file__).parents[2] / "policies/vault/dynamic.hcl").read_text()
    rights += f'path "{mount}/creds/*" {{ capabilities = ["read"] }}'
    login = openbao.admin.auth.token.create(policies=[openbao.policy(rights)], ttl="1h")
    proof = tmp_path / "vault-token"
    proof.touch(mode=0o600)
    proof.write_text(login["auth"]["client_token"])
    own: User = moto.user("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
    with ExitStack() as stack:
        home, github = stack.enter_context(github_home(tmp_path, contract, key))
        vault = {
            "BROKER_VAULT_ADDRESS": openbao.address,
            "BROKER_VAULT_TOKEN_FILE": str(proof),
        }
        home = BrokerHome(home.path, {**home.environment, **vault})
        home.run("secret", "put", "aws-id", stdin=own.key.id)
        home.run("secret", "put", "aws-key", stdin=own.key.secret)
        role = moto.role(own.arn)
        policy = POLICY.format(mount=mount, role=role, region=REGION, moto=moto.url)
        (home.path / "policies" / "kill.yaml").write_text(policy)
        home.run("agents", "enroll", "killer")
        yield Site(home, openbao, postgres, github, moto, mount, role)


def kill_while_minting(site: Site) -> list[threading.Thread]:
    """Have somebody stand before and after each step, all at once, and kill the broker."""
    moments = [
        (scope, f"{side}.{step}.{scope}")
        for scope, steps in MINTING.items()
        for step in steps.split()
        for side in SIDES
    ]
    random.shuffle(moments)
    threads = []
    with site.mortal():
        for scope, moment in moments:
            site.arm(moment)
            threads.append(site.ask_apart(scope))
            site.wait_until_held(moment)
    return threads


def kill_while_ending(site: Site) -> None:
    """Revoke what has been delivered, and kill the broker before and after each step of that."""
    with site.mortal():
        tokens = []
        for scope, steps in ENDING.items():
            for _ in range(len(steps.split()) * len(SIDES)):
                token = site.token(scope)
                answer = site.ask(scope, token)
                assert answer.is_success, answer.text
                tokens.append(token)
        moments = [
            f"{side}.{step}.{scope}"
            for scope, steps in ENDING.items()
            for step in steps.split()
            for side in SIDES
        ]
        for moment in moments:
            site.arm(moment)
        for token in tokens:
            site.revoke(token)
        (site.steps / "reap").touch()
        site.wait_until_held(*moments)


def nothing_is_unknown(site: Site) -> dict[str, int]:
    """Hold what the broker says of leases against what each upstream says; return figures."""
    leases = site.leases()
    out = {one["lease"]: one for one in leases if one["state"] == "delivered"}
    assert set(out) <= set(site.delivered), "marked as delivered, and nobody got it"
    assert not any(one["delivery"] == "proxy" for one in out.values())
    of = {scope: [one for one in leases if one["scope"] == scope] for scope in MINTING}
    # OpenBao and PostgreSQL: what lives is what was delivered, and nothing is in doubt.
    assert {one["state"] for one in of[VAULT]} <= {"delivered", "revoked", "expired"}
    lives = {site.delivered[one]["username"] for one in out if out[one]["scope"] == VAULT}
    assert site.postgres.users() == lives
    assert site.vault_leases() == len(lives)
    # GitHub: what else lives is what it minted for a broker that died before it could know.
    tokens = {site.delivered[one]["token"] for one in out if out[one]["scope"] == HANDED}
    live = set(site.github.live)
    assert tokens <= live
    unsure = [one for one in of[HANDED] + of[KEPT] if one["state"] == "intent"]
    assert len(live - tokens) <= len(unsure)
    assert all("nobody knows whether it was minted" in one["problem"] for one in unsure)
    assert not [one for one in of[HANDED] + of[KEPT] if one["state"] == "revoking"]
    # STS: each session that was opened is somebody's, or is shown until it has expired.
    opened = site.sessions()
    states = {one["grant"]: one["state"] for one in of[AWS]}
    assert {states[grant] for grant in opened} <= {"delivered", "unrevocable", "intent", "expired"}
    assert {grant for grant, one in states.items() if one in {"delivered", "unrevocable"}} <= opened
    unsure_aws = [one for one in of[AWS] if one["state"] == "intent"]
    told = {"leases": len(leases), "delivered": len(out), "unsure": len(unsure + unsure_aws)}
    return {**told, "users": len(lives), "tokens": len(live), "sessions": len(opened)}


def agreed(site: Site) -> dict[str, int]:
    """Return the figures once all agree: what is looked at one after the other may end between."""
    for _ in range(20):
        with suppress(AssertionError):
            return nothing_is_unknown(site)
        time.sleep(0.5)
    return nothing_is_unknown(site)


@pytest.mark.timeout(180 * ROUNDS + 120)
def test_r1_kill_9_before_and_after_every_step_leaves_nothing_unknown(site: Site) -> None:
    random.seed()
    for number in range(ROUNDS):
        threads = kill_while_minting(site)
        kill_while_ending(site)
        for thread in threads:
            thread.join(60)
        with site.broker():
            wait_until(site.settled, "every credential to be over, had or seen", CONVERGENCE)
            figures = agreed(site)
            assert all(site.ask(scope, site.token(scope)).is_success for scope in MINTING)
        print(f"round {number + 1}: {figures}")  # noqa: T201 - figures for whoever runs many
