"""Standards 12 and 13: the documents that describe the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.api.metadata import authorization_server, openid_configuration
from broker.token_request import GRANT_TYPES
from tests.fakes.issuer import BROKER
from tests.fakes.token_bench import over

if TYPE_CHECKING:
    import httpx

    from tests.fakes.token_bench import TokenBench

NAMES = ["oauth-authorization-server", "openid-configuration"]


@pytest.mark.parametrize("name", NAMES)
async def test_standard_13_metadata(token_client: httpx.AsyncClient, name: str) -> None:
    response = await token_client.get(f"/.well-known/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "public, max-age=300"
    document = response.json()
    assert document["issuer"] == BROKER
    assert document["token_endpoint"] == f"{BROKER}/token"
    assert document["jwks_uri"] == f"{BROKER}/.well-known/jwks.json"
    assert document["grant_types_supported"] == list(GRANT_TYPES)
    assert document["token_endpoint_auth_methods_supported"] == ["none", "private_key_jwt"]
    assert document["introspection_endpoint"] == f"{BROKER}/introspect"
    assert document["introspection_endpoint_auth_methods_supported"] == [
        "private_key_jwt",
        "Bearer",
    ]
    assert document["revocation_endpoint"] == f"{BROKER}/revoke"
    assert document["revocation_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    for endpoint in ("token", "introspection", "revocation"):
        # Required wherever private_key_jwt is supported (RFC 8414, 2).
        name = f"{endpoint}_endpoint_auth_signing_alg_values_supported"
        assert document[name] == ["ES256"]
    assert [] not in document.values()


@pytest.mark.parametrize(
    "issuer",
    [
        "https://broker.test",
        "https://broker.test/",
        "https://broker.test/a/b",
        "https://Broker.Test:8443/a",
        "http://127.0.0.1:8700",
    ],
)
def test_standard_13_the_issuer_stands_byte_for_byte(issuer: str) -> None:
    for document in (authorization_server(issuer), openid_configuration(issuer)):
        assert document["issuer"] == issuer
        assert document["token_endpoint"] == issuer.rstrip("/") + "/token"


@pytest.mark.parametrize("name", [*NAMES, "jwks.json"])
async def test_standard_13_both_forms_answer_for_an_issuer_with_a_path(
    token_bench: TokenBench, name: str
) -> None:
    async with over(token_bench.app(issuer=f"{BROKER}/tenant/one")) as client:
        inserted = await client.get(f"/.well-known/{name}/tenant/one")
        appended = await client.get(f"/tenant/one/.well-known/{name}")
    assert inserted.status_code == appended.status_code == 200
    assert inserted.content == appended.content


async def test_openid_discovery_has_what_verifiers_require(
    token_client: httpx.AsyncClient,
) -> None:
    document = (await token_client.get("/.well-known/openid-configuration")).json()
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]
    assert document["subject_types_supported"] == ["public"]
    assert document["response_types_supported"] == ["id_token"]
    assert "authorization_endpoint" not in document


async def test_standard_12_the_key_set_is_public(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    response = await token_client.get("/.well-known/jwks.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/jwk-set+json"
    assert response.headers["cache-control"] == "public, max-age=300"
    (key,) = response.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert (key["alg"], key["use"], key["kid"]) == ("ES256", "sig", token_bench.keys.signer.kid)


@pytest.mark.parametrize("name", [*NAMES, "jwks.json"])
async def test_documents_are_for_reading(token_client: httpx.AsyncClient, name: str) -> None:
    assert (await token_client.head(f"/.well-known/{name}")).status_code == 200
    response = await token_client.post(f"/.well-known/{name}")
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
