"""Engines whose path is not `creds/`, and that want parameters: PKI, SSH, Kubernetes.

Each is OpenBao's own; the cluster behind the last is a fake API server.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from broker.files import create_private
from broker.secrets.vault import VaultBackend
from broker.settings import VaultSettings
from providers.base import Dependencies, ProviderError
from providers.vault_dynamic.fields import VaultDynamicService
from providers.vault_dynamic.provider import VaultDynamic
from tests.components.process import wait_until
from tests.fakes.kubernetes import serving_kubernetes
from tests.providers.vault_dynamic.test_provider import mint, request, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.components.openbao import OpenBao
    from tests.components.tls import TestAuthority
    from tests.fakes.kubernetes import FakeKubernetes

    Provider = Callable[..., VaultDynamic]

BROKER = (Path(__file__).parents[3] / "policies/vault/dynamic.hcl").read_text()
UPDATE = '{ capabilities = ["update"] }'
SSH: dict[str, Any] = {"parameters": {"valid_principals": "deploy"}, "ttl_parameter": "ttl"}


@pytest.fixture
async def provider(openbao: OpenBao, tmp_path: Path) -> AsyncIterator[Provider]:
    """What a login that may use these engines and end credentials makes."""
    policy = openbao.policy(f'{BROKER}\npath "ssh/*" {UPDATE}\npath "kubernetes/*" {UPDATE}')
    token = openbao.admin.auth.token.create(policies=[policy], ttl="10m")["auth"]["client_token"]
    create_private(tmp_path / "token", token.encode())
    backend = VaultBackend(VaultSettings(address=openbao.address, token_file=tmp_path / "token"))
    dependencies = Dependencies(None, None, time.time, backend.calls)  # type: ignore[arg-type]

    def build(mount: str) -> VaultDynamic:
        return VaultDynamic(VaultDynamicService(mount=mount), dependencies)

    yield build
    await backend.close()


@pytest.fixture
def ssh(openbao: OpenBao) -> str:
    if "ssh/" not in openbao.admin.sys.list_mounted_secrets_engines()["data"]:
        openbao.admin.sys.enable_secrets_engine("ssh")
        openbao.admin.write_data("ssh/config/ca", data={"generate_signing_key": True})
        common = {"key_type": "ca", "allow_user_certificates": True, "default_user": "deploy"}
        openbao.admin.write_data(
            "ssh/roles/task", data={**common, "allowed_users": "deploy", "max_ttl": "30m"}
        )
        openbao.admin.write_data(
            "ssh/roles/once",
            data={"key_type": "otp", "default_user": "deploy", "cidr_list": "127.0.0.0/8"},
        )
    return "ssh"


async def test_a_key_pair_that_ssh_certifies(provider: Provider, ssh: str) -> None:
    parameters = {**SSH["parameters"], "key_type": "ed25519"}
    given = {**SSH, "parameters": parameters, "unleased": True}
    minted = await mint(provider(ssh), request(path="issue/task", **given))
    certificate = load_ssh_public_identity(minted.fields["signed_key"].reveal())
    assert isinstance(certificate, SSHCertificate)
    assert certificate.valid_principals == [b"deploy"]
    assert minted.expires_at == certificate.valid_before
    assert 290 < minted.expires_at - time.time() <= 301
    assert "OPENSSH PRIVATE KEY" in text(minted, "private_key")


async def test_a_key_that_ssh_signs_and_openssh_can_read(
    provider: Provider, ssh: str, tmp_path: Path
) -> None:
    keygen = shutil.which("ssh-keygen")
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f task"
    given: dict[str, Any] = {"path": "sign/task", "ttl_parameter": "ttl", "unleased": True}
    given["parameters"] = {**SSH["parameters"], "public_key": public}
    minted = await mint(provider(ssh), request(lifetime=100, **given))
    assert 90 < minted.expires_at - time.time() <= 101
    if keygen is not None:
        file = tmp_path / "key-cert.pub"
        file.write_bytes(minted.fields["signed_key"].reveal())
        shown = await asyncio.create_subprocess_exec(
            keygen, "-L", "-f", file, stdout=subprocess.PIPE
        )
        assert b"user certificate" in (await shown.communicate())[0]


async def test_without_a_word_on_its_lease_no_ssh_key_is_signed(
    provider: Provider, ssh: str
) -> None:
    # Not RSA, which OpenBao may look for a key of for longer than is waited.
    given = {**SSH, "parameters": {**SSH["parameters"], "key_type": "ed25519"}}
    with pytest.raises(ProviderError, match="could not be revoked"):
        await mint(provider(ssh), request(path="issue/task", **given))


async def test_a_one_time_password_is_leased_and_revoked(
    provider: Provider, openbao: OpenBao, ssh: str
) -> None:
    minted = await mint(provider(ssh), request(path="creds/once", parameters={"ip": "127.0.0.1"}))
    await provider(ssh).revoke(minted.handle)
    with pytest.raises(Exception, match="OTP not found"):
        openbao.admin.write_data("ssh/verify", data={"otp": text(minted, "key")})


@pytest.fixture
def cluster(openbao: OpenBao, tls_authority: TestAuthority) -> Iterator[FakeKubernetes]:
    with serving_kubernetes(tls_authority) as cluster:
        openbao.kubernetes(cluster)
        yield cluster
        openbao.admin.sys.disable_secrets_engine("kubernetes")


async def test_a_service_account_of_the_grants_own(
    provider: Provider, cluster: FakeKubernetes
) -> None:
    asked = request(path="creds/ci", parameters={"kubernetes_namespace": "ci"}, ttl_parameter="ttl")
    minted = await mint(provider("kubernetes"), asked)
    token = text(minted, "service_account_token")
    assert cluster.who(token) == ("ci", text(minted, "service_account_name"))
    assert cluster.bindings == cluster.accounts != set()
    assert minted.expires_at - time.time() <= 300
    await provider("kubernetes").revoke(minted.handle)
    assert cluster.who(token) is None
    assert cluster.bindings == cluster.accounts == set()


async def test_it_ends_with_its_grant_whatever_becomes_of_the_broker(
    provider: Provider, cluster: FakeKubernetes
) -> None:
    given: dict[str, Any] = {"path": "creds/ci", "parameters": {"kubernetes_namespace": "ci"}}
    await mint(provider("kubernetes"), request(lifetime=2, **given))
    assert cluster.accounts
    wait_until(lambda: not cluster.accounts, "OpenBao to delete the account", 30)


async def test_a_namespace_that_the_role_does_not_have(
    provider: Provider, cluster: FakeKubernetes
) -> None:
    given: dict[str, Any] = {"path": "creds/ci", "parameters": {"kubernetes_namespace": "prod"}}
    with pytest.raises(ProviderError) as refusal:
        await mint(provider("kubernetes"), request(**given))
    assert refusal.value.code == "400"
    assert not cluster.accounts
