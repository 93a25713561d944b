"""The real components do what the tests that lean on them take for granted."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import hvac
import jwt
import pytest
from hvac.exceptions import Forbidden, InvalidRequest, VaultDown

if TYPE_CHECKING:
    from tests.components.oidc import OidcIssuer
    from tests.components.openbao import OpenBao
    from tests.components.tls import TestAuthority


def _read(client: hvac.Client, mount: str, path: str) -> dict[str, str]:
    answer = client.secrets.kv.v2.read_secret_version(
        path, mount_point=mount, raise_on_deleted_version=True
    )
    fields: dict[str, str] = answer["data"]["data"]
    return fields


def test_the_issuer_signs_what_its_published_keys_verify(oidc_issuer: OidcIssuer) -> None:
    token = oidc_issuer.token(
        "https://broker.test", claims={"sub": "repo:acme/app", "run": 7}, lifetime=60
    )
    metadata = oidc_issuer.client.get(f"{oidc_issuer.url}/.well-known/openid-configuration").json()
    keys = jwt.PyJWKSet.from_dict(oidc_issuer.client.get(metadata["jwks_uri"]).json())
    claims = jwt.decode(
        token,
        keys[jwt.get_unverified_header(token)["kid"]],
        algorithms=["RS256"],
        audience="https://broker.test",
        issuer=metadata["issuer"],
    )
    assert metadata["issuer"] == oidc_issuer.url
    assert (claims["sub"], claims["run"]) == ("repo:acme/app", 7)
    assert claims["exp"] - claims["iat"] == 60


def test_every_token_of_the_issuer_has_its_own_id(oidc_issuer: OidcIssuer) -> None:
    tokens = [oidc_issuer.token("https://broker.test") for _ in range(2)]
    ids = {jwt.decode(token, options={"verify_signature": False})["jti"] for token in tokens}
    assert len(ids) == 2


def test_a_wrapped_secret_id_logs_in_once_and_reads_what_its_policy_says(openbao: OpenBao) -> None:
    mount = openbao.kv()
    openbao.put(mount, "stripe", key="sk_test_1")
    openbao.put(mount, "other", key="sk_test_2")
    role = openbao.approle(
        openbao.policy(f'path "{mount}/data/stripe" {{ capabilities = ["read"] }}')
    )
    client = hvac.Client(url=openbao.address, token=role.wrapping_token)
    secret_id = client.sys.unwrap()["data"]["secret_id"]
    client.auth.approle.login(role.role_id, secret_id)
    assert _read(client, mount, "stripe") == {"key": "sk_test_1"}
    with pytest.raises(Forbidden):
        _read(client, mount, "other")
    with pytest.raises(InvalidRequest):
        client.auth.approle.login(role.role_id, secret_id)
    client.adapter.close()


def test_a_sealed_server_refuses_and_an_unsealed_one_remembers(sealable_openbao: OpenBao) -> None:
    mount = sealable_openbao.kv()
    sealable_openbao.put(mount, "stripe", key="sk_test_1")
    sealable_openbao.seal()
    with pytest.raises(VaultDown):
        _read(sealable_openbao.admin, mount, "stripe")
    sealable_openbao.unseal()
    assert _read(sealable_openbao.admin, mount, "stripe") == {"key": "sk_test_1"}


def test_a_certificate_of_the_authority_is_trusted_by_its_file_alone(
    tls_authority: TestAuthority,
) -> None:
    certificate = tls_authority.certificate("api.test", "127.0.0.1")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = certificate.context().wrap_bio(outgoing, incoming, server_side=True)
    ours = tls_authority.client_context().wrap_bio(incoming, outgoing, server_hostname="api.test")
    for side in (ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.getpeercert()
