"""terraform/modules/vault/policies: with that policy a broker does its work, and nothing more.

The resources of modules/vault itself need the provider hashicorp/vault (see test_modules).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import hvac
import pytest
from hvac.exceptions import Forbidden

from broker.errors import SecretUnavailable
from broker.files import create_private
from broker.secrets.vault import VaultBackend
from broker.settings import VaultSettings
from providers.base import CredentialRequest, Dependencies
from providers.vault_dynamic.fields import VaultDynamicScope, VaultDynamicService
from providers.vault_dynamic.provider import VaultDynamic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.openbao import OpenBao
    from tests.components.postgres import Postgres
    from tests.components.terraform import TerraformTree

VARIABLES = """
kv_mount     = "{kv}"
secrets      = ["stripe"]
dynamic      = {{ "{database}/creds/readonly" = "read" }}
transit_keys = {{ signing = "sign" }}
"""


@pytest.fixture(scope="module")
def kv(openbao: OpenBao) -> str:
    mount = openbao.kv()
    openbao.put(mount, "stripe", key="sk_live_1")
    openbao.put(mount, "github", key="not for the broker")
    return mount


@pytest.fixture(scope="module")
def database(openbao: OpenBao, postgres: Postgres) -> str:
    roles = ("readonly", "admin")
    return openbao.database(postgres, **{role: {"default_ttl": "10m"} for role in roles})


@pytest.fixture(scope="module")
def token(terraform: TerraformTree, openbao: OpenBao, kv: str, database: str) -> str:
    """What the broker has after it has logged in."""
    module = terraform.at("modules/vault/policies")
    module.init()
    (module.folder / "terraform.tfvars").write_text(VARIABLES.format(kv=kv, database=database))
    module.run("apply", "-auto-approve")
    policy = openbao.policy(module.run("output", "-raw", "policy"))
    created = openbao.admin.auth.token.create(policies=[policy], ttl="10m")
    found: str = created["auth"]["client_token"]
    return found


@pytest.fixture
async def vault(openbao: OpenBao, token: str, tmp_path: Path) -> AsyncIterator[VaultBackend]:
    create_private(tmp_path / "token", token.encode())
    backend = VaultBackend(VaultSettings(address=openbao.address, token_file=tmp_path / "token"))
    yield backend
    await backend.close()


async def test_the_broker_reads_its_secret_and_no_other(vault: VaultBackend, kv: str) -> None:
    value = await vault.read(f"{kv}/stripe#key")
    assert value.secret.reveal() == b"sk_live_1"
    with pytest.raises(SecretUnavailable, match="capabilities"):
        await vault.read(f"{kv}/github#key")


async def test_it_makes_logins_and_ends_them(vault: VaultBackend, database: str) -> None:
    provider = VaultDynamic(
        VaultDynamicService(mount=database),
        Dependencies(None, None, time.time, vault.calls),  # type: ignore[arg-type]
    )
    constraints = VaultDynamicScope(path="creds/readonly")
    asked = CredentialRequest("orders", "coder", "grant-1", "orders.read", None, 300, constraints)
    minted = await provider.mint_reserved(asked, await provider.reserve(asked))
    assert minted.fields["username"].reveal()
    await provider.revoke(minted.handle)


@pytest.mark.parametrize(
    "path",
    ["{database}/creds/admin", "{database}/roles/readonly", "{kv}/metadata/stripe", "sys/mounts"],
)
def test_nothing_else_is_open_to_it(
    openbao: OpenBao, token: str, kv: str, database: str, path: str
) -> None:
    client = hvac.Client(url=openbao.address, token=token)
    with pytest.raises(Forbidden):
        client.adapter.get(f"/v1/{path.format(kv=kv, database=database)}")
    client.adapter.close()
