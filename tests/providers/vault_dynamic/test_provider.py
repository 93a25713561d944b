from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from broker.files import create_private
from broker.secrets.vault import VaultBackend
from broker.settings import VaultSettings
from providers.base import (
    CredentialRequest,
    Dependencies,
    Minted,
    ProviderError,
    Reserved,
    Secret,
)
from providers.vault_dynamic import PLUGIN
from providers.vault_dynamic.fields import VaultDynamicScope, VaultDynamicService
from providers.vault_dynamic.provider import VaultDynamic
from tests.components.process import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from tests.components.openbao import OpenBao
    from tests.components.postgres import Postgres

    Provider = Callable[..., VaultDynamic]

UPDATE = '{ capabilities = ["update"] }'
BROKER = (Path(__file__).parents[3] / "policies/vault/dynamic.hcl").read_text()


def request(lifetime: int = 300, **scope: Any) -> CredentialRequest:
    return CredentialRequest(
        service="orders-db",
        agent="coder",
        grant="grant-1",
        scope="orders.read",
        task=None,
        lifetime=lifetime,
        constraints=VaultDynamicScope(**{"path": "creds/readonly", **scope}),
    )


def text(minted: Minted, name: str) -> str:
    return minted.fields[name].reveal().decode()


async def mint(provider: VaultDynamic, asked: CredentialRequest) -> Minted:
    return await provider.mint_reserved(asked, await provider.reserve(asked))


@pytest.fixture
def mount(openbao: OpenBao, postgres: Postgres) -> str:
    return openbao.database(
        postgres,
        readonly={"default_ttl": "10m", "max_ttl": "20m"},
        brief={"default_ttl": "20s", "max_ttl": "1m"},
    )


@pytest.fixture
async def vault(openbao: OpenBao, mount: str, tmp_path: Path) -> AsyncIterator[VaultBackend]:
    """A login with no right that the provider's documentation does not name."""
    policy = openbao.policy(
        BROKER + f'path "{mount}/creds/*" {{ capabilities = ["read"] }}\npath "pki/*" {UPDATE}'
    )
    token = openbao.admin.auth.token.create(policies=[policy], ttl="10m")["auth"]["client_token"]
    create_private(tmp_path / "token", token.encode())
    backend = VaultBackend(VaultSettings(address=openbao.address, token_file=tmp_path / "token"))
    yield backend
    await backend.close()


@pytest.fixture
def provider(vault: VaultBackend, mount: str) -> Provider:
    def build(**service: Any) -> VaultDynamic:
        config = VaultDynamicService(**{"mount": mount, **service})
        dependencies = Dependencies(None, None, time.time, vault.calls)  # type: ignore[arg-type]
        return VaultDynamic(config, dependencies)

    return build


async def test_the_user_that_is_minted_logs_in_until_it_is_revoked(
    provider: Provider, postgres: Postgres
) -> None:
    minted = await mint(provider(), request())
    user, password = text(minted, "username"), text(minted, "password")
    assert postgres.accepts(user, password)
    await provider().revoke(minted.handle)
    assert not postgres.accepts(user, password)
    assert user not in postgres.users()
    await provider().revoke(minted.handle)


async def test_a_credential_never_outlives_its_grant(
    provider: Provider, postgres: Postgres
) -> None:
    began = time.time()
    minted = await mint(provider(), request(lifetime=3))
    assert began + 2 < minted.expires_at <= time.time() + 3
    user = text(minted, "username")
    assert user in postgres.users()
    wait_until(lambda: user not in postgres.users(), "Vault to end it by itself", 30)


async def test_a_role_that_is_briefer_than_the_grant_is_asked_for_its_longest(
    provider: Provider, postgres: Postgres
) -> None:
    minted = await mint(provider(), request(path="creds/brief"))
    assert minted.renewable
    assert 55 < minted.expires_at - time.time() <= 60
    until = postgres.query(
        f"SELECT valuntil FROM pg_user WHERE usename = '{text(minted, 'username')}'"  # noqa: S608
    )
    assert until
    # The role's limit is that of renewals, too: nothing is gained, and that is said.
    assert await provider().renew(minted.handle, 300) <= minted.expires_at + 1
    await provider().revoke(minted.handle)


async def test_a_renewal_goes_as_far_as_asked(provider: Provider) -> None:
    minted = await mint(provider(), request(lifetime=200))
    assert 100 < await provider().renew(minted.handle, 120) - time.time() <= 120
    await provider().revoke(minted.handle)
    with pytest.raises(ProviderError) as refusal:
        await provider().renew(minted.handle, 120)
    assert not refusal.value.retryable


async def test_r1_what_was_minted_under_a_hold_ends_with_it(
    provider: Provider, postgres: Postgres
) -> None:
    asked = request()
    reserved = await provider().reserve(asked)
    minted = await provider().mint_reserved(asked, reserved)
    user = text(minted, "username")
    # As after a crash: the answer is lost, the accessor is all there is.
    await provider().revoke(reserved.handle)
    wait_until(lambda: user not in postgres.users(), "Vault to drop the user", 30)


async def test_r3_a_hold_that_was_revoked_mints_nothing(
    provider: Provider, postgres: Postgres
) -> None:
    asked, before = request(), postgres.users()
    reserved = await provider().reserve(asked)
    await provider().revoke(reserved.handle)
    with pytest.raises(ProviderError) as refusal:
        await provider().mint_reserved(asked, reserved)
    assert refusal.value.code == "403"
    assert postgres.users() <= before


async def test_the_token_of_a_hold_is_the_grants_and_nobodys_child(
    provider: Provider, openbao: OpenBao
) -> None:
    reserved = await provider().reserve(request(lifetime=77))
    found = openbao.admin.auth.token.lookup_accessor(reserved.handle["accessor"])["data"]
    assert found["orphan"]
    assert found["explicit_max_ttl"] == 77
    assert not found["renewable"]
    assert found["meta"] == {"agent": "coder", "grant": "grant-1", "scope": "orders.read"}
    assert "hidden" in repr(reserved)
    assert reserved.handle["accessor"] not in repr(reserved)
    await provider().revoke(reserved.handle)


async def test_a_narrower_policy_and_a_token_role(
    provider: Provider, openbao: OpenBao, mount: str, vault: VaultBackend
) -> None:
    narrow = openbao.policy(f'path "{mount}/creds/readonly" {{ capabilities = ["read"] }}')
    asked = request()
    with pytest.raises(ProviderError) as refusal:
        await provider(token_policies=(narrow,)).reserve(asked)
    assert refusal.value.code in {"400", "403"}  # not one that the broker has itself
    role = f"role-{mount}"
    openbao.admin.write_data(
        f"auth/token/roles/{role}", data={"allowed_policies": narrow, "orphan": True}
    )
    own = openbao.admin.auth.token.lookup((await vault._session.client()).token)["data"]
    openbao.admin.sys.create_or_update_policy(
        own["policies"][-1], BROKER + f'path "auth/token/create/{role}" {UPDATE}'
    )
    minted = await mint(provider(token_role=role, token_policies=(narrow,)), asked)
    assert text(minted, "username")
    await provider().revoke(minted.handle)


async def test_a_token_role_that_makes_other_tokens_is_refused(
    provider: Provider, openbao: OpenBao, mount: str, vault: VaultBackend
) -> None:
    role = f"role-{mount}"
    openbao.admin.write_data(f"auth/token/roles/{role}", data={"orphan": False})
    own = openbao.admin.auth.token.lookup((await vault._session.client()).token)["data"]
    openbao.admin.sys.create_or_update_policy(
        own["policies"][-1], BROKER + f'path "auth/token/create/{role}" {UPDATE}'
    )
    with pytest.raises(ProviderError, match="not as asked"):
        await provider(token_role=role).reserve(request())


async def test_a_path_that_the_broker_may_not_use(provider: Provider, openbao: OpenBao) -> None:
    with pytest.raises(ProviderError) as refusal:
        await mint(provider(mount="elsewhere"), request())
    assert refusal.value.code == "403"
    assert not refusal.value.retryable
    assert openbao.root_token not in str(refusal.value)


async def test_r2_a_sealed_vault_is_said_in_bounded_time(
    sealable_openbao: OpenBao, tmp_path: Path
) -> None:
    create_private(tmp_path / "root", sealable_openbao.root_token.encode())
    backend = VaultBackend(
        VaultSettings(address=sealable_openbao.address, token_file=tmp_path / "root")
    )
    await backend.start()
    sealable_openbao.seal()
    own = VaultDynamic(
        VaultDynamicService(mount="database"),
        Dependencies(None, None, time.time, backend.calls),  # type: ignore[arg-type]
    )
    for call in (
        own.reserve(request()),
        own.mint_reserved(request(), _reserved()),
        own.renew({"lease": "x"}, 5),
        own.revoke({"accessor": "x"}),
    ):
        with pytest.raises(ProviderError) as refusal:
            await call
        assert refusal.value.retryable
    await backend.close()


def _reserved() -> Reserved:
    return Reserved({"accessor": "x"}, Secret(b"s.none"))


@pytest.fixture
def pki(openbao: OpenBao) -> str:
    if "pki/" not in openbao.admin.sys.list_mounted_secrets_engines()["data"]:
        openbao.admin.sys.enable_secrets_engine("pki")
        openbao.admin.secrets.pki.generate_root("internal", "test root")
        for name, leased in (("leased", True), ("unleased", False)):
            openbao.admin.secrets.pki.create_or_update_role(
                name,
                {"allow_any_name": True, "generate_lease": leased, "max_ttl": "30m"},
            )
    return "pki"


async def test_certificates_that_are_leased_and_revoked(
    provider: Provider, openbao: OpenBao, pki: str
) -> None:
    asked = request(
        path="issue/leased", parameters={"common_name": "task.example"}, ttl_parameter="ttl"
    )
    minted = await mint(provider(mount=pki), asked)
    certificate = x509.load_pem_x509_certificate(minted.fields["certificate"].reveal())
    assert certificate.not_valid_after_utc.timestamp() <= time.time() + 301
    assert text(minted, "private_key").startswith("-----BEGIN")
    await provider(mount=pki).revoke(minted.handle)
    revoked = openbao.admin.secrets.pki.read_certificate(text(minted, "serial_number"))
    assert revoked["data"]["revocation_time"] > 0


async def test_what_has_no_lease_is_refused_unless_the_scope_says_so(
    provider: Provider, pki: str
) -> None:
    given: dict[str, Any] = {
        "path": "issue/unleased",
        "parameters": {"common_name": "task.example"},
        "ttl_parameter": "ttl",
    }
    with pytest.raises(ProviderError, match="could not be revoked"):
        await mint(provider(mount=pki), request(**given))
    minted = await mint(provider(mount=pki), request(**given, unleased=True))
    assert 290 < minted.expires_at - time.time() <= 301
    assert not minted.renewable
    with pytest.raises(ProviderError):
        await provider(mount=pki).renew(minted.handle, 60)
    await provider(mount=pki).revoke(minted.handle)


class _Answers:
    """A Vault that gives one answer after the other."""

    def __init__(self, *answers: Mapping[str, Any]) -> None:
        self.answers = list(answers)
        self.calls: list[str] = []

    async def call(self, method: str, path: str, *_: Any, **__: Any) -> Mapping[str, Any]:
        self.calls.append(f"{method} {path}")
        return self.answers.pop(0) if self.answers else {}


def _answered(*answers: Mapping[str, Any]) -> tuple[VaultDynamic, _Answers]:
    vault = _Answers(*answers)
    config = VaultDynamicService(mount="database")
    return VaultDynamic(config, Dependencies(None, None, time.time, vault)), vault  # type: ignore[arg-type]


TOKEN = {
    "client_token": "s.secret",
    "accessor": "a",
    "lease_duration": 300,
    "orphan": True,
    "token_type": "service",
}


@pytest.mark.parametrize(
    "answer",
    [{}, {"auth": None}, {"auth": {}}, {"auth": {**TOKEN, "accessor": None, "orphan": None}}],
)
async def test_an_answer_that_is_no_token(answer: dict[str, Any]) -> None:
    provider, _ = _answered(answer)
    with pytest.raises(ProviderError):
        await provider.reserve(request())


@pytest.mark.parametrize(
    "change",
    [
        {"lease_duration": 0},
        {"lease_duration": 301},
        {"orphan": False},
        {"token_type": "batch"},
    ],
)
async def test_a_token_that_is_not_as_asked_is_ended_at_once(change: dict[str, Any]) -> None:
    provider, vault = _answered({"auth": TOKEN | change})
    with pytest.raises(ProviderError, match="not as asked"):
        await provider.reserve(request())
    assert vault.calls[-1] == "POST auth/token/revoke-accessor"


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": {}}, {"data": []}])
async def test_an_answer_that_is_no_credential(answer: dict[str, Any]) -> None:
    provider, _ = _answered(answer)
    with pytest.raises(ProviderError, match="no credential"):
        await provider.mint_reserved(request(), _reserved())


async def test_a_lease_is_revoked_before_its_token() -> None:
    provider, vault = _answered()
    await provider.revoke({"lease": "l", "accessor": "a"})
    assert vault.calls == ["POST sys/leases/revoke", "POST auth/token/revoke-accessor"]


async def test_without_a_vault() -> None:
    provider = PLUGIN.build(
        VaultDynamicService(mount="database"),
        Dependencies(None, None, time.time),  # type: ignore[arg-type]
    )
    assert isinstance(provider, VaultDynamic)
    with pytest.raises(ProviderError, match="broker has no Vault"):
        await provider.reserve(request())


@pytest.mark.parametrize(
    ("credential", "header", "value", "secret"),
    [
        ({"type": "bearer"}, b"Authorization", b"Bearer t0ken", b"t0ken"),
        ({"type": "bearer", "field": "other"}, b"Authorization", b"Bearer 0ther", b"0ther"),
        ({"type": "basic"}, b"Authorization", b"Basic dTpw", b"p"),
        (
            {"type": "header", "name": "X-Consul-Token", "prefix": "T "},
            b"X-Consul-Token",
            b"T t0ken",
            b"t0ken",
        ),
    ],
)
def test_what_was_made_goes_into_a_request(
    credential: dict[str, str], header: bytes, value: bytes, secret: bytes
) -> None:
    fields = {"token": b"t0ken", "other": b"0ther", "username": b"u", "password": b"p"}
    minted = Minted({name: Secret(one) for name, one in fields.items()}, 0.0)
    injection = _presenting(credential).present(minted, request())
    ((name, written),) = injection.headers
    assert (name, written.reveal()) == (header, value)
    assert [one.reveal() for one in injection.secrets] == [secret]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user": b"x"}, "no 'token', but user"),
        ({"token": b"a\r\nX-Evil: 1"}, "cannot be sent"),
        ({"token": b""}, "cannot be sent"),
    ],
)
def test_what_was_made_and_cannot_be_sent(fields: dict[str, bytes], told: str) -> None:
    minted = Minted({name: Secret(one) for name, one in fields.items()}, 0.0)
    with pytest.raises(ProviderError, match=told):
        _presenting({"type": "bearer"}).present(minted, request())


def test_a_service_that_says_no_credential_presents_none() -> None:
    provider, _ = _answered()
    with pytest.raises(ProviderError, match="says no `credential`"):
        provider.present(Minted({}, 0.0), request())


def _presenting(credential: dict[str, str]) -> VaultDynamic:
    config = VaultDynamicService.model_validate(
        {"mount": "m", "base_url": "https://api.example", "credential": credential}
    )
    return VaultDynamic(config, Dependencies(None, None, time.time))  # type: ignore[arg-type]
