from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import ConfigurationError, SecretUnavailable
from broker.secrets.vault.client import ATTEMPTS, VaultConnection, VaultRefused
from broker.settings import VaultSettings
from tests.components.process import free_port
from tests.fakes.vault import ENDLESS, answer, fake_vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.components.tls import TestAuthority

TOKEN = "hvs.canary-3fd1"
GOOD = answer(200, {"data": {"ttl": 60}})


@asynccontextmanager
async def connected(address: str, **settings: Any) -> AsyncIterator[VaultConnection]:
    connection = VaultConnection(VaultSettings(address=address, **{"timeout": 1, **settings}))
    yield connection
    await connection.close()


async def look_up(address: str, **settings: Any) -> int:
    """Ask something of Vault with a token."""
    async with connected(address, **settings) as connection:
        client = connection.client(TOKEN)
        return await connection.call(
            "the look-up", lambda: int(client.auth.token.lookup_self()["data"]["ttl"])
        )


async def test_the_token_goes_to_the_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fake_vault(GOOD) as vault:
        assert await look_up(vault.address) == 60
    (request,) = vault.requests
    assert request.startswith(b"GET /v1/auth/token/lookup-self HTTP/1.1\r\n")
    assert f"X-Vault-Token: {TOKEN}\r\n".encode() in request
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_k7_no_redirect_is_followed(status: int) -> None:
    async with fake_vault(GOOD) as elsewhere:
        redirect = answer(status, {}, Location=f"{elsewhere.address}/v1/auth/token/lookup-self")
        async with fake_vault(redirect) as vault:
            with pytest.raises(VaultRefused, match="redirects are not followed"):
                await look_up(vault.address)
            assert len(vault.requests) == 1
        assert elsewhere.requests == []


async def test_k7_the_environment_sends_the_token_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login thief password x")
    (tmp_path / ".vault-token").write_text("hvs.of-the-user")
    async with fake_vault(GOOD) as elsewhere:
        for name in ("VAULT_ADDR", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, elsewhere.address)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("VAULT_TOKEN", "hvs.of-the-environment")
        monkeypatch.setenv("VAULT_NAMESPACE", "other")
        async with fake_vault(GOOD) as vault:
            await look_up(vault.address)
            async with connected(vault.address) as connection:
                client = connection.client()
                await connection.call("a call without a token", client.sys.read_seal_status)
        assert elsewhere.requests == []
    with_token, without = vault.requests
    assert b"X-Vault-Token: " + TOKEN.encode() in with_token
    assert b"Token" not in without
    for request in vault.requests:
        assert b"X-Vault-Namespace" not in request
        assert b"Authorization" not in request


async def test_cookies_are_not_kept() -> None:
    async with (
        fake_vault(answer(200, {"data": {"ttl": 1}}, Set_Cookie="route=a; Path=/")) as vault,
        connected(vault.address) as connection,
    ):
        client = connection.client(TOKEN)
        for _ in range(2):
            await connection.call("the look-up", client.auth.token.lookup_self)
    assert not any(b"Cookie" in request for request in vault.requests)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    async with fake_vault(answer(status), answer(status), GOOD) as vault:
        assert await look_up(vault.address) == 60
    assert len(vault.requests) == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (429, r"it limits the rate of requests \(429\)"),
        (503, r"it is sealed, starting or without a leader \(503\)"),
        (500, r"it failed \(500\)"),
    ],
)
async def test_attempts_are_bounded(status: int, reason: str) -> None:
    async with fake_vault(answer(status, {"errors": ["canary words"]})) as vault:
        with pytest.raises(SecretUnavailable, match=reason) as caught:
            await look_up(vault.address)
    assert caught.value.retryable
    assert len(vault.requests) == ATTEMPTS
    assert "canary words" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 412, 472, 473])
async def test_a_refusal_is_never_tried_again(status: int) -> None:
    async with fake_vault(answer(status, {"errors": [f"bad token {TOKEN}"]})) as vault:
        with pytest.raises(VaultRefused, match=rf"refused the look-up \({status}\)$") as caught:
            await look_up(vault.address)
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert len(vault.requests) == 1


@pytest.mark.parametrize(
    "body", [[], {}, {"data": None}, {"data": {}}, {"data": {"ttl": "soon"}}, "text", 7], ids=repr
)
async def test_an_answer_of_another_form_is_refused(body: object) -> None:
    async with fake_vault(answer(200, body)) as vault:
        with pytest.raises(VaultRefused, match="did not answer the look-up as Vault does"):
            await look_up(vault.address)


async def test_an_answer_that_is_no_json_is_refused() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    async with fake_vault(page) as vault:
        with pytest.raises(VaultRefused, match="did not answer the look-up as Vault does"):
            await look_up(vault.address)


async def test_nobody_there() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SecretUnavailable, match="no connection") as caught:
        await look_up(address)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"], ids=["head", "body"]
)
async def test_an_answer_that_never_ends_is_given_up(start: bytes) -> None:
    async with fake_vault(start + ENDLESS) as vault:
        with pytest.raises(SecretUnavailable, match="did not come in time") as caught:
            await look_up(vault.address, timeout=0.2)
    assert caught.value.retryable


async def test_the_ca_file_is_what_is_trusted(tls_authority: TestAuthority) -> None:
    tls = tls_authority.certificate("127.0.0.1").context()
    async with fake_vault(GOOD, tls=tls) as vault:
        assert await look_up(vault.address, ca_file=tls_authority.ca_file) == 60
        with pytest.raises(
            SecretUnavailable, match=r"certificate is not trusted; set vault.ca_fil"
        ):
            await look_up(vault.address)
    assert len(vault.requests) == 1


async def test_a_certificate_for_another_name_is_refused(tls_authority: TestAuthority) -> None:
    tls = tls_authority.certificate("vault.example.com").context()
    async with fake_vault(GOOD, tls=tls) as vault:
        with pytest.raises(SecretUnavailable, match="certificate is not trusted"):
            await look_up(vault.address, ca_file=tls_authority.ca_file)
    assert vault.requests == []


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_an_unusable_ca_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"vault.ca_file {ca_file}: holds no usable"):
        VaultConnection(VaultSettings(address="https://v", ca_file=ca_file))
