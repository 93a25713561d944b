from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
import pytest
from pydantic import ValidationError

from providers.azure import PLUGIN, AzureScope, AzureService
from providers.base import Minted, ProviderError, Revocable, Secret
from tests.fakes.endpoint import token
from tests.fakes.keys import strangers_key
from tests.fakes.provider_bench import NOW, dependencies, request

if TYPE_CHECKING:
    from pathlib import Path

    from providers.azure import Azure
    from tests.fakes.endpoint import Endpoint

TENANT = "0b0c9f3e-5d7e-4b7d-9a0e-0a3c4b7f9d11"
CLIENT = "1f0c9f3e-5d7e-4b7d-9a0e-0a3c4b7f9d22"
GRAPH = AzureScope(resource="https://graph.microsoft.com")
SECRET = {"type": "client_secret", "secret": "env:SECRET"}
GOOD: dict[str, Any] = {
    "base_url": "https://graph.microsoft.com/v1.0",
    "tenant": TENANT,
    "client_id": CLIENT,
    "credential": SECRET,
}


def provider(endpoint: Endpoint, credential: Any, **secrets: bytes) -> Azure:
    config = AzureService.model_validate(
        {
            **GOOD,
            "credential": credential,
            "login_url": endpoint.url,
            "allow_private": True,
            "ca_file": str(endpoint.ca_file),
        }
    )
    values = {f"env:{name}": value for name, value in secrets.items()}
    built: Azure = PLUGIN.build(config, dependencies(values))  # type: ignore[assignment]
    return built


async def test_a_workload_s_token_stands_for_the_application(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.say(200, token("for-graph", expires_in=3599, ext_expires_in=3599))
    file = tmp_path / "token"
    file.write_text("header.payload.first\n")
    one = provider(endpoint, {"type": "federated", "token_file": str(file)})
    minted = await one.mint(request(GRAPH))
    file.write_text("header.payload.second")
    await one.mint(request(GRAPH))
    first, second = endpoint.sent
    assert first.path == f"/{TENANT}/oauth2/v2.0/token"
    assert first.form == {
        "grant_type": "client_credentials",
        "client_id": CLIENT,
        "scope": "https://graph.microsoft.com/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "header.payload.first",
    }
    assert second.form["client_assertion"] == "header.payload.second"
    assert minted.expires_at == NOW + 3599
    assert minted.fields == {"access_token": Secret(b"for-graph")}
    assert not isinstance(one, Revocable)


async def test_a_certificate_signs_with_its_thumbprint(endpoint: Endpoint) -> None:
    endpoint.say(200, token())
    key, thumbprint = strangers_key("RS256"), "a" * 43
    certificate = {"type": "certificate", "private_key": "env:PEM", "thumbprint": thumbprint}
    await provider(endpoint, certificate, PEM=key.private_pem()).mint(request(GRAPH))
    signed = endpoint.sent[0].form["client_assertion"]
    header = jwt.get_unverified_header(signed)
    assert (header["alg"], header["x5t#S256"]) == ("PS256", thumbprint)
    url = f"{endpoint.url}/{TENANT}/oauth2/v2.0/token"
    claims = jwt.decode(
        signed,
        key.private.public_key(),
        algorithms=["PS256"],
        audience=url,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert (claims["iss"], claims["sub"]) == (CLIENT, CLIENT)
    assert claims["exp"] - claims["iat"] == 300


async def test_a_secret_goes_in_the_form(endpoint: Endpoint) -> None:
    endpoint.say(200, token())
    await provider(endpoint, SECRET, SECRET=b"hunter2").mint(request(GRAPH))
    form = endpoint.sent[0].form
    assert form["client_secret"] == "hunter2"
    assert "client_assertion" not in form


async def test_a_refusal_is_told_by_its_code(endpoint: Endpoint) -> None:
    endpoint.say(401, {"error": "invalid_client", "error_description": "AADSTS7000215 hunter2"})
    with pytest.raises(ProviderError, match="401 invalid_client") as caught:
        await provider(endpoint, SECRET, SECRET=b"hunter2").mint(request(GRAPH))
    assert "hunter2" not in str(caught.value)
    assert caught.value.untouched


@pytest.mark.parametrize(
    "content", [None, b"", b"no token", b"a.b", b"a.b.c" * 20_000, b"a.b.\xff"]
)
async def test_a_file_without_a_token_is_told(
    endpoint: Endpoint, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    one = provider(endpoint, {"type": "federated", "token_file": str(file)})
    with pytest.raises(ProviderError, match=f"token_file {file}"):
        await one.mint(request(GRAPH))
    assert endpoint.sent == []


def test_the_header_that_carries_it(endpoint: Endpoint) -> None:
    one = provider(endpoint, SECRET)
    minted = Minted({"access_token": Secret(b"tok")}, NOW)
    injection = one.present(minted, request(GRAPH))
    assert injection.headers == ((b"Authorization", Secret(b"Bearer tok")),)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tenant": "../evil"}, "should match pattern"),
        ({"tenant": "evil.com/x"}, "should match pattern"),
        ({"tenant": "common"}, "should match pattern"),
        ({"client_id": "my-app"}, "should match pattern"),
        ({"login_url": "http://login.example.com"}, "login_url is plain http"),
        ({"base_url": "http://graph.example.com"}, "base_url is plain http"),
        ({"credential": {"type": "client_secret", "secret": "hunter2"}}, "secret reference"),
        ({"credential": {"type": "federated", "token_file": "token"}}, "should match pattern"),
        ({"credential": {"type": "managed"}}, "does not match any"),
        ({"scope": "x"}, "Extra inputs"),
    ],
    ids=repr,
)
def test_what_cannot_work_or_is_unsafe_does_not_load(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        AzureService.model_validate(GOOD | changes)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("tenant", [TENANT, "contoso.onmicrosoft.com"])
def test_a_tenant_is_an_id_or_a_domain(tenant: str) -> None:
    assert AzureService.model_validate(GOOD | {"tenant": tenant}).tenant == tenant


@pytest.mark.parametrize(
    "resource", ["", "*", "https://a b", "graph", "https://x/.default?y", "javascript://x"]
)
def test_a_resource_is_one(resource: str) -> None:
    with pytest.raises(ValidationError):
        AzureScope(resource=resource)


@pytest.mark.parametrize("resource", ["https://vault.azure.net", f"api://{CLIENT}", CLIENT])
def test_resources_have_several_forms(resource: str) -> None:
    assert AzureScope(resource=resource).resource == resource


def test_every_secret_is_known() -> None:
    assert PLUGIN.secret_references(AzureService.model_validate(GOOD)) == ("env:SECRET",)
    certificate = {"type": "certificate", "private_key": "env:PEM", "thumbprint": "a" * 43}
    with_key = AzureService.model_validate(GOOD | {"credential": certificate})
    assert PLUGIN.secret_references(with_key) == ("env:PEM",)
    federated = {"type": "federated", "token_file": "/token"}
    without = AzureService.model_validate(GOOD | {"credential": federated})
    assert PLUGIN.secret_references(without) == ()
