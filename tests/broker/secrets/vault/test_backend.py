from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import hvac
import pytest

from broker.errors import ConfigurationError, SecretUnavailable
from broker.files import create_private
from broker.secrets.base import MAX_SECRET_BYTES
from broker.secrets.reader import Secrets
from broker.secrets.vault import VaultBackend
from broker.settings import VaultSettings
from tests.contracts.secrets import VALUE, Kept, SecretBackendContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.openbao import OpenBao

MALFORMED = ("kv", "kv/a", "kv#key", "kv/../a#key", "kv/a?x#key", "kv/a@0#key", "kv/a#key#b")


def settings_for(bao: OpenBao, directory: Path, policy: str) -> VaultSettings:
    """A login by AppRole with a wrapped secret_id, as a deployment has it."""
    role = bao.approle(policy)
    create_private(directory / "role-id", role.role_id.encode() + b"\n")
    create_private(directory / "secret-id", role.wrapping_token.encode() + b"\n")
    return VaultSettings(
        address=bao.address,
        login="approle",
        role_id_file=directory / "role-id",
        secret_id_file=directory / "secret-id",
        secret_id_wrapped=True,
    )


def may_read(bao: OpenBao, *rules: str) -> str:
    return bao.policy("".join(f'path "{rule}" {{ capabilities = ["read"] }}' for rule in rules))


@pytest.fixture
async def backend(openbao: OpenBao, tmp_path: Path, mount: str) -> AsyncIterator[VaultBackend]:
    policy = may_read(openbao, f"{mount}/data/app/*", f"{mount}/app/*")
    backend = VaultBackend(settings_for(openbao, tmp_path, policy))
    yield backend
    await backend.close()


@pytest.fixture
def mount(openbao: OpenBao) -> str:
    return openbao.kv()


class TestVersion2(SecretBackendContract):
    @pytest.fixture
    async def kept(self, openbao: OpenBao, backend: VaultBackend, mount: str) -> Kept:
        openbao.put(mount, "app/stripe", key=VALUE.decode(), other="x")

        async def rotate(value: bytes) -> None:
            await asyncio.to_thread(openbao.put, mount, "app/stripe", key=value.decode())

        return Kept(
            backend=backend,
            rest=f"{mount}/app/stripe#key",
            absent=f"{mount}/app/absent#key",
            malformed=MALFORMED,
            rotate=rotate,
        )


class TestVersion1(SecretBackendContract):
    @pytest.fixture
    def mount(self, openbao: OpenBao) -> str:
        return openbao.kv(1)

    @pytest.fixture
    async def kept(self, openbao: OpenBao, backend: VaultBackend, mount: str) -> Kept:
        def write(value: bytes) -> None:
            openbao.admin.secrets.kv.v1.create_or_update_secret(
                "app/stripe", {"key": value.decode()}, mount_point=mount
            )

        async def rotate(value: bytes) -> None:
            await asyncio.to_thread(write, value)

        write(VALUE)
        return Kept(
            backend=backend,
            rest=f"{mount}/app/stripe#key",
            absent=f"{mount}/app/absent#key",
            malformed=MALFORMED,
            rotate=rotate,
        )

    async def test_a_version_cannot_be_pinned(self, kept: Kept, mount: str) -> None:
        with pytest.raises(SecretUnavailable, match=f"at {mount}/ keeps none .*; drop the @2"):
            await kept.backend.read(f"{mount}/app/stripe@2#key")


async def test_a_version_can_be_pinned(openbao: OpenBao, backend: VaultBackend, mount: str) -> None:
    for value in ("first", "second", "third"):
        openbao.put(mount, "app/a", key=value)
    pinned = await backend.read(f"{mount}/app/a@2#key")
    assert (pinned.secret.reveal(), pinned.version) == (b"second", 2)
    current = await backend.read(f"{mount}/app/a#key")
    assert (current.secret.reveal(), current.version) == (b"third", 3)
    with pytest.raises(SecretUnavailable, match="has no version 9; see which it has: bao kv"):
        await backend.read(f"{mount}/app/a@9#key")


async def test_a_deleted_version_is_told_from_none(
    openbao: OpenBao, backend: VaultBackend, mount: str
) -> None:
    openbao.put(mount, "app/a", key="first")
    openbao.put(mount, "app/a", key="second")
    kv = openbao.admin.secrets.kv.v2
    kv.delete_secret_versions("app/a", [2], mount_point=mount)
    with pytest.raises(SecretUnavailable, match=r"the current version of .* has been deleted"):
        await backend.read(f"{mount}/app/a#key")
    kv.destroy_secret_versions("app/a", [1], mount_point=mount)
    with pytest.raises(SecretUnavailable, match=r"version 1 of .* has been deleted"):
        await backend.read(f"{mount}/app/a@1#key")


async def test_a_missing_field_names_those_there_are(
    openbao: OpenBao, backend: VaultBackend, mount: str
) -> None:
    openbao.put(mount, "app/a", api_key="hush-hush", region="eu")
    with pytest.raises(SecretUnavailable, match="it has api_key, region; did you mean") as caught:
        await backend.read(f"{mount}/app/a#apikey")
    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "kind"), [(7, "a int"), ({"x": "y"}, "a dict"), ("", "an empty text"), (True, "bool")]
)
async def test_a_field_that_is_no_text_is_refused(
    openbao: OpenBao, backend: VaultBackend, mount: str, value: object, kind: str
) -> None:
    openbao.admin.secrets.kv.v2.create_or_update_secret("app/a", {"key": value}, mount_point=mount)
    with pytest.raises(SecretUnavailable, match=f"#key is .*{kind}; expected a text"):
        await backend.read(f"{mount}/app/a#key")


async def test_a_mount_point_may_have_slashes(openbao: OpenBao, tmp_path: Path, mount: str) -> None:
    deep = f"{mount}-team/prod/kv"
    openbao.admin.sys.enable_secrets_engine("kv", path=deep, options={"version": "2"})
    openbao.put(deep, "app/a", key="deep")
    backend = VaultBackend(settings_for(openbao, tmp_path, may_read(openbao, f"{deep}/data/app/*")))
    assert (await backend.read(f"{deep}/app/a#key")).secret.reveal() == b"deep"
    await backend.close()


async def test_what_policy_does_not_permit_says_what_would(
    openbao: OpenBao, backend: VaultBackend, mount: str
) -> None:
    openbao.put(mount, "elsewhere", key="hush-hush")
    rule = f'path "{mount}/data/elsewhere" {{ capabilities = \\["read"\\] }}'
    with pytest.raises(SecretUnavailable, match=f"refused .* \\(403\\).* {rule}") as caught:
        await backend.read(f"{mount}/elsewhere#key")
    assert not caught.value.retryable
    with pytest.raises(SecretUnavailable, match="the broker's login has no right to it"):
        await backend.read("unknown-mount/elsewhere#key")


async def test_another_engine_is_refused(openbao: OpenBao, tmp_path: Path) -> None:
    openbao.admin.sys.enable_secrets_engine("transit", path="transit-x")
    backend = VaultBackend(settings_for(openbao, tmp_path, may_read(openbao, "transit-x/*")))
    with pytest.raises(SecretUnavailable, match="transit-x/ is of type 'transit'"):
        await backend.read("transit-x/keys#key")
    await backend.close()


async def test_an_engine_that_was_replaced_is_found_again(
    openbao: OpenBao, tmp_path: Path, mount: str
) -> None:
    backend = VaultBackend(settings_for(openbao, tmp_path, may_read(openbao, f"{mount}/*")))
    openbao.put(mount, "app/a", key="two")
    assert (await backend.read(f"{mount}/app/a#key")).secret.reveal() == b"two"
    openbao.admin.sys.disable_secrets_engine(mount)
    openbao.admin.sys.enable_secrets_engine("kv", path=mount, options={"version": "1"})
    openbao.admin.secrets.kv.v1.create_or_update_secret("app/a", {"key": "one"}, mount_point=mount)
    with pytest.raises(SecretUnavailable):
        await backend.read(f"{mount}/app/a#key")
    assert (await backend.read(f"{mount}/app/a#key")).secret.reveal() == b"one"
    await backend.close()


async def test_namespaces_are_kept_apart(openbao: OpenBao, tmp_path: Path) -> None:
    openbao.admin.adapter.post("/v1/sys/namespaces/team-a", json={})
    inside = hvac.Client(openbao.address, token=openbao.root_token, namespace="team-a")
    inside.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
    inside.secrets.kv.v2.create_or_update_secret("a", {"key": "inside"}, mount_point="kv")
    inside.sys.create_or_update_policy("reads", 'path "kv/*" { capabilities = ["read"] }')
    issued = inside.auth.token.create(policies=["reads"], ttl="5m")
    inside.adapter.close()
    create_private(tmp_path / "token", issued["auth"]["client_token"].encode())
    settings = VaultSettings(
        address=openbao.address, namespace="team-a", token_file=tmp_path / "token"
    )
    backend = VaultBackend(settings)
    assert (await backend.read("kv/a#key")).secret.reveal() == b"inside"
    await backend.close()
    outside = VaultBackend(replace(settings, namespace=None))
    with pytest.raises(SecretUnavailable, match=r"\(403\)"):
        await outside.read("kv/a#key")
    await outside.close()


async def test_sealed_the_cached_value_serves_then_nothing_does_then_it_recovers(
    sealable_openbao: OpenBao, tmp_path: Path
) -> None:
    bao = sealable_openbao
    mount = bao.kv()
    bao.put(mount, "a", key="one")
    backend = VaultBackend(settings_for(bao, tmp_path, may_read(bao, f"{mount}/*")))
    now = 1000.0
    secrets = Secrets([backend], fresh_for=10, stale_for=60, clock=lambda: now)
    reference = f"vault:{mount}/a#key"
    assert (await secrets.read(reference)).reveal() == b"one"

    bao.seal()
    now += 59
    assert (await secrets.read(reference)).reveal() == b"one"
    now += 1
    with pytest.raises(SecretUnavailable, match="is sealed, starting or without a leader") as e:
        await secrets.read(reference)
    assert e.value.retryable

    await asyncio.to_thread(bao.unseal)
    bao.put(mount, "a", key="two")
    assert (await secrets.read(reference)).reveal() == b"two"
    await secrets.close()


async def test_start_logs_in_and_says_what_is_wrong(
    openbao: OpenBao, backend: VaultBackend, tmp_path: Path
) -> None:
    await backend.start()
    settings = VaultSettings(address=openbao.address, token_file=tmp_path / "absent")
    broken = VaultBackend(settings)
    with pytest.raises(SecretUnavailable, match=r"cannot log in to Vault: .*absent: there is no"):
        await broken.start()
    await broken.close()


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (VaultSettings(), "vault.address is not set"),
        (VaultSettings(address="https://v"), "vault.token_file is not set"),
        (VaultSettings(address="https://v", login="approle"), "vault.role_id_file is not set"),
        (VaultSettings(address="https://v", login="jwt"), "vault.role is not set"),
        (VaultSettings(address="https://v", login="jwt", role="r"), "vault.token_file is not set"),
        (VaultSettings(address="https://v", login="kubernetes"), "vault.role is not set"),
    ],
)
def test_missing_settings_are_named(settings: VaultSettings, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        VaultBackend(settings)


async def test_a_field_that_is_no_credential_by_its_length_is_refused(
    openbao: OpenBao, backend: VaultBackend, mount: str
) -> None:
    openbao.put(mount, "app/a", key="x" * (MAX_SECRET_BYTES + 1))
    with pytest.raises(SecretUnavailable, match=r"#key has 65537 bytes, .* at most 65536"):
        await backend.read(f"{mount}/app/a#key")
