"""The admin API of a broker that runs, as `curl` would use it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from broker.app.admin import judges
from broker.errors import PolicyError
from broker.policy.source import Document
from broker.settings import Settings
from tests.broker.app.conftest import Home, running
from tests.components.process import free_port, wait_until
from tests.fakes.admin_bench import edit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.broker.app.conftest import Served


class Admin:
    """A broker with an admin API, and a client of that."""

    def __init__(self, served: Served, url: str, token: str) -> None:
        self.served = served
        self.token = token
        self.http = httpx.Client(
            base_url=f"{url}/admin/v1",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def change(self, *edits: dict[str, Any], comment: str | None = None) -> httpx.Response:
        return self.http.post("/policy/changes", json={"edits": edits, "comment": comment})


def with_admin(home: Home) -> tuple[Home, str]:
    port = str(free_port())
    return replace(
        home, environment={**home.environment, "BROKER_ADMIN_PORT": port}
    ), f"http://127.0.0.1:{port}"


def create_token(home: Home) -> str:
    command = ("admin", "token", "create", "ci", "--expires", "1h")
    return home.run(*command, "--can", "policy:read,policy:write").strip()


@pytest.fixture
def admin(home: Home) -> Iterator[Admin]:
    """Give a broker that runs with its admin API on."""
    home, url = with_admin(home)
    token = create_token(home)
    with running(home) as served, Admin(served, url, token) as admin:
        yield admin


def write_scope(demo_api: int) -> list[dict[str, Any]]:
    service = {
        "provider": "http_api",
        "base_url": f"http://127.0.0.1:{demo_api}",
        "insecure_http": True,
        "allow_private": True,
        "credential": {"type": "bearer", "secret": "embedded:orders"},
    }
    scope = {"service": "shop", "allow": ["GET /v1/orders"]}
    agent = {"trust": [{"source": "local", "claims": {"sub": "late"}}], "scopes": ["shop.read"]}
    return [
        edit("services", "shop", service),
        edit("scopes", "shop.read", scope),
        edit("agents", "late", agent),
    ]


def test_policy_that_is_set_by_the_api_is_in_force_at_once_and_survives_a_restart(
    home: Home, demo_api: int
) -> None:
    home, url = with_admin(home)
    token = create_token(home)
    home.run("agents", "enroll", "late", "--scope", "orders.read")
    (home.path / "policies/agents/late.yaml").unlink()
    with running(home) as served, Admin(served, url, token) as admin:
        answer = admin.change(*write_scope(demo_api), comment="a shop")
        assert answer.status_code == 200, answer.text
        task = served.token("shop.read", "late")
        assert served.call("GET", "/shop/v1/orders", task).status_code == 200
        assert served.call("GET", "/shop/v1/refunds", task).status_code == 403
    with running(home) as again, Admin(again, url, token) as admin:
        task = again.token("shop.read", "late")
        assert again.call("GET", "/shop/v1/orders", task).status_code == 200
        removed = admin.change(edit("agents", "late", None, "*"))
        assert removed.status_code == 200
        assert again.call("GET", "/shop/v1/orders", task).status_code != 200
    changes = [one for one in home.records() if one["action"] == "policy.change"]
    assert [one["phase"] for one in changes] == ["intent", "outcome"] * 2
    assert {one["subject"] for one in changes} == {"admin:ci"}
    assert changes[0]["reason"] == "a shop"
    assert "version 2, sha256:" in changes[3]["detail"]
    assert json.loads(home.run("audit", "verify", "--json"))["whole"]


def test_a_change_by_a_command_reaches_a_broker_that_runs(admin: Admin, demo_api: int) -> None:
    assert admin.change(*write_scope(demo_api)).status_code == 200
    home = admin.served.home
    before = admin.http.get("/policy").json()["policy_version"]
    home.run("policy", "rollback", "0", "--yes")
    wait_until(
        lambda: admin.http.get("/policy").json()["policy_version"] != before,
        "the rollback to come into force",
    )
    assert admin.http.get("/policy/agents/late").status_code == 404


def test_all_workers_learn_of_a_change(home: Home, demo_api: int) -> None:
    home, url = with_admin(home)
    token = create_token(home)
    several = replace(home, environment={**home.environment, "BROKER_WORKERS": "2"})
    with running(several) as served, Admin(served, url, token) as admin:
        assert admin.change(*write_scope(demo_api)).status_code == 200
        version = admin.http.get("/policy").json()["policy_version"]

        def everywhere() -> bool:
            asked = {"Authorization": f"Bearer {token}", "Connection": "close"}
            answers = [served.http.get(f"{url}/admin/v1/policy", headers=asked) for _ in range(12)]
            return {one.json()["policy_version"] for one in answers} == {version}

        wait_until(everywhere, "all workers to have the new policy")


def test_a_token_that_is_revoked_is_refused_at_once(admin: Admin) -> None:
    assert admin.http.get("/self").status_code == 200
    admin.served.home.run("admin", "token", "revoke", "ci")
    assert admin.http.get("/self").status_code == 401


def test_agents_cannot_reach_it_through_the_gateway(admin: Admin) -> None:
    """Whatever policy says, and whoever wrote it (onecli#268)."""
    service = {
        "provider": "http_api",
        "base_url": str(admin.http.base_url.copy_with(path="/")).rstrip("/"),
        "insecure_http": True,
        "allow_private": True,
        "credential": {"type": "bearer", "secret": "embedded:orders"},
    }
    scope = {"service": "self", "allow": ["* /**"]}
    agent = {"trust": [{"source": "local", "claims": {"sub": "late"}}], "scopes": ["self.all"]}
    home = admin.served.home
    home.run("agents", "enroll", "late", "--scope", "orders.read")
    (home.path / "policies/agents/late.yaml").unlink()
    made = [edit("services", "self", service), edit("scopes", "self.all", scope)]
    wait_until(
        lambda: admin.change(*made, edit("agents", "late", agent)).status_code == 200,
        "the file to be gone",
    )
    answer = admin.served.call("GET", "/self/admin/v1/self", admin.served.token("self.all", "late"))
    assert answer.status_code == 502
    assert answer.headers["Broker-Error"] == "upstream_forbidden"


def test_without_a_port_nothing_listens(served: Served) -> None:
    assert "admin API" not in served.log
    assert served.http.get(f"{served.home.control_url}/admin/v1/policy").status_code == 404


def test_what_judges_changes_is_what_would_load_them(tmp_path: Path) -> None:
    settings = Settings(tmp_path, issuer="http://127.0.0.1:8700")
    settings.policies.mkdir()
    (settings.policies / "a.yaml").write_text("agents: {}\n")
    judged_by = judges(settings)
    assert [one.text for one in judged_by.files()] == ["agents: {}\n"]
    vault = Document(
        "x",
        "services: {s: {provider: http_api, base_url: 'https://s.example', "
        "credential: {type: bearer, secret: 'vault:kv/s#key'}}}",
    )
    with pytest.raises(PolicyError, match="BROKER_VAULT_ADDRESS"):
        judged_by.load([vault])
    (problem,) = judged_by.find([vault], {"scopes": frozenset({"x"})})
    assert "BROKER_VAULT_ADDRESS" in problem.message
