"""The main job against real servers: OpenBao keeps the key, an OpenID issuer vouches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import jwt
import pytest

from tests.fakes.vendor_api import VendorApi, vendor_api
from tests.integration.vault_broker import KEY, proof, vault_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.oidc import OidcIssuer
    from tests.components.openbao import OpenBao
    from tests.components.tls import TestAuthority
    from tests.integration.running_broker import RunningBroker


@pytest.fixture(scope="module")
def running_vendor(tls_authority: TestAuthority) -> Iterator[VendorApi]:
    with vendor_api(KEY, tls_authority.certificate("127.0.0.1")) as api:
        yield api


@pytest.fixture
def vendor(running_vendor: VendorApi) -> VendorApi:
    running_vendor.requests.clear()
    return running_vendor


@pytest.fixture(scope="module")
def broker(
    openbao: OpenBao,
    oidc_issuer: OidcIssuer,
    running_vendor: VendorApi,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningBroker]:
    directory = tmp_path_factory.mktemp("vault-and-oidc")
    with vault_broker(directory, openbao, oidc_issuer, running_vendor) as running:
        yield running


@pytest.fixture
def token(broker: RunningBroker, oidc_issuer: OidcIssuer) -> str:
    return broker.task_token(proof(broker, oidc_issuer), "stripe.read", task="nightly report")


def test_an_identity_goes_in_and_the_call_carries_the_key(
    broker: RunningBroker, vendor: VendorApi, token: str
) -> None:
    answer = broker.call(token, "GET", "/stripe/v1/charges", params={"limit": "2"})

    assert answer.status_code == httpx.codes.OK
    assert [charge["id"] for charge in answer.json()["data"]] == ["ch_0", "ch_1"]
    (request,) = vendor.requests
    assert (request.method, request.path) == ("GET", "/v1/charges?limit=2")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert token not in repr(request)


def test_what_policy_does_not_allow_never_leaves(
    broker: RunningBroker, vendor: VendorApi, token: str
) -> None:
    answer = broker.call(token, "POST", "/stripe/v1/refunds", data={"charge": "ch_1"})

    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "Broker-Error" in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("claims", "scope", "error"),
    [
        ({"ref": "refs/heads/feature"}, "stripe.read", "invalid_request"),
        ({"repository_id": "654321"}, "stripe.read", "invalid_request"),
        ({}, "stripe.refund", "invalid_scope"),
        ({}, "stripe.read stripe.refund", "invalid_scope"),
    ],
)
def test_only_the_trusted_identity_gets_what_its_agent_may_have(
    broker: RunningBroker,
    oidc_issuer: OidcIssuer,
    claims: dict[str, str],
    scope: str,
    error: str,
) -> None:
    answer = broker.exchange(proof(broker, oidc_issuer, **claims), scope)

    assert (answer.status_code, answer.json()["error"]) == (httpx.codes.BAD_REQUEST, error)


def test_a_proof_is_good_for_one_exchange(broker: RunningBroker, oidc_issuer: OidcIssuer) -> None:
    identity = proof(broker, oidc_issuer)

    assert broker.exchange(identity, "stripe.read").status_code == httpx.codes.OK
    again = broker.exchange(identity, "stripe.read")
    assert (again.status_code, again.json()["error"]) == (400, "invalid_request")


def test_every_step_is_on_record_and_no_secret_is(
    broker: RunningBroker, oidc_issuer: OidcIssuer, openbao: OpenBao
) -> None:
    identity = proof(broker, oidc_issuer)
    token = broker.task_token(identity, "stripe.read", task="nightly report")
    broker.call(token, "GET", "/stripe/v1/charges")
    broker.call(token, "DELETE", "/stripe/v1/charges")

    grant = jwt.decode(token, options={"verify_signature": False})["jti"]
    records = [record for record in broker.home.records() if record.get("grant") == grant]
    assert [
        (record["action"], record["phase"], record["decision"], record.get("status"))
        for record in records
    ] == [
        ("token.exchange", "intent", "allow", None),
        ("token.exchange", "outcome", "allow", None),
        ("proxy.request", "intent", "allow", None),
        ("proxy.request", "outcome", "allow", 200),
        ("proxy.request", "outcome", "deny", 403),
    ]
    for record in records:
        assert (record["agent"], record["subject"]) == ("release-bot", "repo:acme/app")
        assert (record["issuer"], record["task"]) == (oidc_issuer.url, "nightly report")
        assert record["policy_version"].startswith("sha256:")
    broker.home.run("audit", "verify")

    secrets = (KEY, identity, token, openbao.root_token)
    for path in broker.home.path.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [True for secret in secrets if secret.encode() in content], path
