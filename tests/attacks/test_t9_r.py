"""T9, R2, R3: whoever hangs up or revokes, at whatever moment, no credential is left behind.

A real broker, a real OpenBao behind a proxy that holds requests at a chosen moment, and a real
PostgreSQL in which a credential is a user that can log in, or is not there.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from broker.revoked import revocation
from broker.storage.sqlite import SqliteStorage
from tests.components.process import serving, wait_until
from tests.fakes.holding_proxy import HoldingProxy, Side, holding_proxy
from tests.integration.running_broker import COMMAND, BrokerHome

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from broker.model import Lease
    from tests.components.openbao import OpenBao
    from tests.components.postgres import Postgres

POLICY: Final = """
services:
  orders-db: {{provider: vault_dynamic, mount: {mount}}}
scopes:
  orders.read: {{service: orders-db, delivery: [credential], path: creds/readonly}}
  orders.brief: {{service: orders-db, delivery: [credential], path: creds/brief}}
agents:
  my-agent:
    trust: [{{source: local, claims: {{sub: my-agent}}}}]
    scopes: [orders.read, orders.brief]
"""

SLOWLY: Final = 'SELECT pg_sleep(0.5); DROP ROLE IF EXISTS "{{name}}"'
SIDES: Final[tuple[Side, ...]] = ("before", "after")


@dataclass
class Site:
    """A broker's home, what stands behind it, and what its callers got."""

    home: BrokerHome
    proxy: HoldingProxy
    postgres: Postgres
    delivered: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def broker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a broker until the block ends, unless it has been killed by then."""

        def ready() -> bool:
            try:
                return httpx.get(f"{self.home.control_url}/healthz", trust_env=False).is_success
            except httpx.TransportError:
                return False

        with serving(
            [COMMAND, "serve"],
            ready,
            directory=self.home.path.parent,
            environment=self.home.environment,
        ) as process:
            yield process

    def token(self, scope: str = "orders.brief") -> str:
        """Return a task token of the local agent."""
        return self.home.run("token", "--scope", scope).strip()

    def collect(self, token: str, scope: str = "orders.brief") -> httpx.Response:
        """Ask for a credential, and keep what comes."""
        response = httpx.post(
            f"{self.home.control_url}/credentials",
            json={"scope": scope},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
        )
        if response.is_success:
            document = response.json()
            self.delivered[document["lease"]] = document["credential"]["username"]
        return response

    def collect_apart(self, token: str) -> threading.Thread:
        """Ask in a thread of its own; a broker that dies meanwhile is no failure."""

        def ask() -> None:
            with suppress(httpx.TransportError):
                self.collect(token)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def leases(self) -> list[Lease]:
        """Return every lease that there has been, the oldest first."""

        async def read() -> tuple[Lease, ...]:
            storage = self._storage()
            try:
                return await storage.leases.leases(over=True)
            finally:
                await storage.close()

        return list(asyncio.run(read()))

    def states(self) -> set[str]:
        """Return the states that leases are in."""
        return {lease.state for lease in self.leases()}

    def wait_until_nobody_can_log_in(self) -> None:
        """Return once each user that was made is gone.

        Where the broker never heard a lease's name it ends the token that the lease belongs to,
        and OpenBao then drops the user on its own time.
        """
        wait_until(lambda: self.postgres.users() == set(), "the end of every user", 60)

    def revoke(self, jti: str) -> None:
        """Revoke a grant in the store, as another process would."""

        async def revoke() -> None:
            storage = self._storage()
            await storage.revocations.add(revocation("grant", jti, now=time.time(), by="test"))
            await storage.close()

        asyncio.run(revoke())

    def _storage(self) -> SqliteStorage:
        return SqliteStorage(self.home.path / "data" / "broker.db")


@pytest.fixture
def site(sealable_openbao: OpenBao, postgres: Postgres, tmp_path: Path) -> Iterator[Site]:
    for user in postgres.users():
        postgres.query(f'DROP ROLE "{user}"')
    mount = sealable_openbao.database(
        postgres,
        readonly={"default_ttl": "30m", "max_ttl": "1h"},
        # A user goes slowly, so that it shows who says too early that it is gone.
        brief={"default_ttl": "1m", "max_ttl": "1h", "revocation_statements": SLOWLY},
    )
    rights = (Path(__file__).parents[2] / "policies/vault/dynamic.hcl").read_text()
    policy = sealable_openbao.policy(
        f'path "{mount}/creds/*" {{ capabilities = ["read"] }}\n' + rights
    )
    login = sealable_openbao.admin.auth.token.create(policies=[policy], ttl="30m")
    proof = tmp_path / "vault-token"
    proof.touch(mode=0o600)
    proof.write_text(login["auth"]["client_token"])
    with holding_proxy(sealable_openbao.address) as proxy:
        home = BrokerHome.create(
            tmp_path / "broker" / "home",
            vault_address=proxy.address,
            vault_token_file=str(proof),
        )
        home.policy(POLICY.format(mount=mount))
        yield Site(home, proxy, postgres)


def test_the_agent_collects_logs_in_and_is_out_when_its_grant_ends(
    site: Site, postgres: Postgres
) -> None:
    with site.broker():
        token = site.home.run("token", "--scope", "orders.read", "--ttl", "6s").strip()
        document = site.collect(token, "orders.read").json()
        user, password = (document["credential"][name] for name in ("username", "password"))
        assert postgres.query("SELECT current_user", user=user, password=password) == user
        wait_until(lambda: not postgres.accepts(user, password), "the grant's end", 30)
        wait_until(lambda: site.states() == {"expired"}, "the lease to be over", 30)
        own = json.loads(site.home.run("credential", "orders.read", "--json"))
        assert postgres.accepts(own["credential"]["username"], own["credential"]["password"])
    steps = [(one.get("action"), one.get("decision")) for one in site.home.records()]
    assert ("credential.mint", "allow") in steps
    assert ("credential.revoke", "allow") in steps
    for path in site.home.path.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


def test_t9_a_caller_that_hangs_up_gets_nothing_and_leaves_nothing(site: Site) -> None:
    with site.broker():
        token = site.token()
        for side in SIDES:
            site.proxy.hold(("creds/brief", side))
            _ask_and_hang_up(site, token)
            site.proxy.release()
        wait_until(lambda: site.states() == {"revoked"}, "revocation", 30)
        assert len(site.leases()) == len(SIDES)
        site.wait_until_nobody_can_log_in()
        wait_until(lambda: "the caller hung up" in str(site.home.records()), "the record", 10)


def _ask_and_hang_up(site: Site, token: str) -> None:
    body = b'{"scope": "orders.brief"}'
    port = int(site.home.environment["BROKER_CONTROL_PORT"])
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(
            b"POST /credentials HTTP/1.1\r\nHost: broker\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (token.encode(), len(body), body)
        )
        site.proxy.wait_until_held()


def test_r2_callers_wait_for_a_bounded_time_and_revocation_for_ever(
    site: Site, sealable_openbao: OpenBao
) -> None:
    with site.broker():
        token = site.token()
        assert site.collect(token).is_success
        for statuses in ([429] * 3, [500] * 3, [503] * 3):
            site.proxy.refuse(*statuses)
            _is_unavailable(site, token)
        sealable_openbao.seal()
        _is_unavailable(site, token)
        jti = site.leases()[0].grant
        site.revoke(jti)
        wait_until(
            lambda: any(lease.attempts >= 3 for lease in site.leases()), "attempts to revoke", 60
        )
        (stuck,) = json.loads(site.home.run("leases", "--json"))
        assert stuck["state"] == "revoking"
        assert "sealed" in stuck["problem"]
        metrics = httpx.get(f"{site.home.control_url}/metrics", trust_env=False).text
        assert 'broker_leases{state="revoking"} 1.0' in metrics
        sealable_openbao.unseal()
        site.wait_until_nobody_can_log_in()
        wait_until(lambda: site.states() == {"revoked"}, "all to be over", 30)


def _is_unavailable(site: Site, token: str) -> None:
    began = time.monotonic()
    response = site.collect(token)
    assert (response.status_code, response.json()["code"]) == (503, "credential_unavailable")
    assert response.headers["retry-after"]
    assert time.monotonic() - began < 30  # a bound against hangs


def test_r2_a_vault_that_is_slow_is_not_waited_for_for_ever(site: Site) -> None:
    with site.broker():
        token = site.token()
        site.proxy.hold(("creds/brief", "after"))
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(_is_unavailable, site, token)
            site.proxy.wait_until_held()
            assert len(site.postgres.users()) == 1  # it was made, and nobody was told
            asking.result()
        site.proxy.release()
        wait_until(lambda: site.states() == {"revoked"}, "revocation", 60)
        site.wait_until_nobody_can_log_in()


def test_r2_a_login_that_has_expired_ends_nothing_and_forgets_nothing(
    site: Site, sealable_openbao: OpenBao
) -> None:
    proof = Path(site.home.environment["BROKER_VAULT_TOKEN_FILE"])
    admin = sealable_openbao.admin
    with site.broker():
        token = site.token()
        assert site.collect(token).is_success
        policies = admin.auth.token.lookup(proof.read_text())["data"]["policies"]
        admin.auth.token.revoke(proof.read_text())
        began = time.monotonic()
        refused = site.collect(token)
        assert refused.status_code in {502, 503}
        assert "Vault" in refused.json()["detail"]
        assert time.monotonic() - began < 30  # a bound against hangs
        site.revoke(site.leases()[0].grant)
        wait_until(
            lambda: any(lease.attempts >= 2 for lease in site.leases()), "attempts to revoke", 60
        )
        assert len(site.postgres.users()) == 1
        told = json.loads(site.home.run("leases", "--json"))
        assert [(one["state"], bool(one["problem"])) for one in told] == [("revoking", True)]
        proof.write_text(
            admin.auth.token.create(policies=policies, ttl="30m")["auth"]["client_token"]
        )
        site.wait_until_nobody_can_log_in()
        wait_until(lambda: site.states() == {"revoked"}, "all to be over", 30)


@pytest.mark.parametrize("step", ["creds/brief", "sys/leases/renew"])
@pytest.mark.parametrize("side", SIDES)
def test_r3_revocation_wins_over_a_credential_that_is_being_minted(
    site: Site, side: Side, step: str
) -> None:
    with site.broker():
        token = site.token()
        site.proxy.hold((step, side))
        asking = site.collect_apart(token)
        site.proxy.wait_until_held()
        site.revoke(site.leases()[0].grant)
        site.proxy.release()
        asking.join(30)
        assert site.delivered == {}
        wait_until(lambda: site.states() == {"revoked"}, "revocation", 30)
        site.wait_until_nobody_can_log_in()
        assert site.collect(token).status_code == httpx.codes.UNAUTHORIZED
