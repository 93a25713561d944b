"""OpenBao, a real server that speaks Vault's API, which the tests may seal."""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import hvac
import pytest

from tests.components.process import free_port, listening, serving, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.components.gate import Gate
    from tests.components.postgres import Postgres
    from tests.fakes.kubernetes import FakeKubernetes

_names: Final = count(1)
_CREATE_USER: Final = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
)


@dataclass(frozen=True)
class AppRole:
    """A login for one policy; `wrapping_token` is good for one unwrapping of the secret_id."""

    name: str
    role_id: str
    wrapping_token: str = field(repr=False)


@dataclass(frozen=True)
class OpenBao:
    """A running, initialised server; `admin` holds the root token."""

    address: str
    root_token: str = field(repr=False)
    unseal_key: str = field(repr=False)
    admin: hvac.Client

    def kv(self, version: int = 2) -> str:
        """Mount a key-value engine of this version and return its mount point."""
        mount = f"kv{next(_names)}"
        self.admin.sys.enable_secrets_engine("kv", path=mount, options={"version": str(version)})
        return mount

    def put(self, mount: str, path: str, **fields: str) -> int:
        """Write a secret to a version 2 engine and return its new version."""
        answer = self.admin.secrets.kv.v2.create_or_update_secret(
            path=path, secret=fields, mount_point=mount
        )
        version: int = answer["data"]["version"]
        return version

    def policy(self, hcl: str) -> str:
        """Write a policy and return its name."""
        name = f"policy-{next(_names)}"
        self.admin.sys.create_or_update_policy(name, hcl)
        return name

    def database(self, postgres: Postgres, **roles: Mapping[str, str]) -> str:
        """Mount a database engine for `postgres` with roles that may log in; return its mount."""
        mount = f"database{next(_names)}"
        self.admin.sys.enable_secrets_engine("database", path=mount)
        engine = self.admin.secrets.database
        engine.configure(
            name="postgres",
            plugin_name="postgresql-database-plugin",
            allowed_roles=["*"],
            connection_url=(
                "postgresql://{{username}}:{{password}}@127.0.0.1:"
                f"{postgres.port}/postgres?sslmode=disable"
            ),
            username=postgres.admin,
            password=postgres.password,
            mount_point=mount,
        )
        for name, settings in roles.items():
            self.admin.write_data(
                f"{mount}/roles/{name}",
                data={
                    "db_name": "postgres",
                    "creation_statements": [_CREATE_USER],
                    **settings,
                },
            )
        return mount

    def kubernetes(self, cluster: FakeKubernetes) -> None:
        """Mount the Kubernetes engine with a role for the namespace `ci`."""
        self.admin.sys.enable_secrets_engine("kubernetes")
        self.admin.write_data(
            "kubernetes/config",
            data={
                "kubernetes_host": cluster.url,
                "kubernetes_ca_cert": Path(cluster.ca_file).read_text(),
                "service_account_jwt": cluster.admin,
                "disable_local_ca_jwt": True,
            },
        )
        self.admin.write_data(
            "kubernetes/roles/ci",
            data={
                "allowed_kubernetes_namespaces": ["ci"],
                "kubernetes_role_name": "edit",
                "kubernetes_role_type": "ClusterRole",
                "token_default_ttl": "10m",
                "token_max_ttl": "1h",
            },
        )

    def approle(self, policy: str, *, ttl: str = "10m", secret_id_uses: int = 1) -> AppRole:
        """Make a role with this policy; its secret_id comes wrapped."""
        if "approle/" not in self.admin.sys.list_auth_methods()["data"]:
            self.admin.sys.enable_auth_method("approle")
        role = f"role-{next(_names)}"
        self.admin.auth.approle.create_or_update_approle(
            role,
            token_policies=[policy],
            token_ttl=ttl,
            token_max_ttl="1h",
            secret_id_num_uses=secret_id_uses,
        )
        wrapped = self.admin.auth.approle.generate_secret_id(role, wrap_ttl="10m")
        return AppRole(
            name=role,
            role_id=self.admin.auth.approle.read_role_id(role)["data"]["role_id"],
            wrapping_token=wrapped["wrap_info"]["token"],
        )

    def seal(self) -> None:
        """Seal the server: every request is answered 503 until it is unsealed."""
        self.admin.sys.seal()

    def unseal(self) -> None:
        """Unseal the server and return once it is active."""
        self.admin.sys.submit_unseal_key(self.unseal_key)
        wait_until(self._active, "OpenBao to be active")

    def _active(self) -> bool:
        status: int = self.admin.sys.read_health_status().status_code
        return status == HTTPStatus.OK


@contextmanager
def running_openbao(component: Gate, directory: Path) -> Iterator[OpenBao]:
    """Run a server with one key share and storage in memory until the block ends."""
    bao = component.program("bao", "make setup")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    config = directory / "server.json"
    config.write_text(
        json.dumps(
            {
                "storage": {"inmem": {}},
                "listener": [{"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}}],
                "api_addr": address,
                "default_lease_ttl": "10m",
                "max_lease_ttl": "1h",
            }
        )
    )
    admin = hvac.Client(url=address, token="")
    with (
        serving(
            [bao, "server", f"-config={config}"],
            lambda: listening(port),
            directory=directory,
            environment={"PATH": os.environ["PATH"], "HOME": str(directory)},
        ),
        closing(admin.adapter),
    ):
        keys = admin.sys.initialize(secret_shares=1, secret_threshold=1)
        admin.token = keys["root_token"]
        server = OpenBao(address, keys["root_token"], keys["keys_base64"][0], admin)
        server.unseal()
        yield server


@pytest.fixture(scope="session")
def openbao(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server for the whole run; tests mount their own engines and never seal it."""
    with running_openbao(component, tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture
def sealable_openbao(
    component: Gate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenBao]:
    """A server of the test's own, which it may seal."""
    with running_openbao(component, tmp_path_factory.mktemp("sealable-openbao")) as server:
        yield server
