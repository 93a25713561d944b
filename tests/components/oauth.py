"""npm's `oidc-provider` as the authorization server of an API."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from tests.components.process import free_port, listening, serving
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate
    from tests.components.tls import TestAuthority

_FOLDER: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class OAuthServer:
    """A running server; `signer` is the private key of its client `signer`, in PEM."""

    url: str
    ca_file: Path
    client: httpx.Client
    signer: bytes = field(repr=False)

    def secret(self, client: str) -> bytes:
        """Return the secret of a client; it has characters that must be encoded."""
        return f"{client}-secret:+%/?&".encode()

    def refresh_token(self) -> bytes:
        """Return a new first refresh token, as if a person had just authorised `laptop`."""
        answer = self.client.post(f"{self.url}/test/refresh-token")
        return answer.raise_for_status().content

    def introspect(self, token: bytes, client: str) -> dict[str, Any]:
        """Return what the server itself says of a token of a client that has a secret."""
        answer = self.client.post(
            f"{self.url}/token/introspection",
            data={"token": token.decode()},
            auth=(client, str(httpx.QueryParams({"": self.secret(client).decode()}))[1:]),
        )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@pytest.fixture(scope="session")
def oauth_server(
    component: Gate, tls_authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OAuthServer]:
    """A real authorization server on https://127.0.0.1."""
    node = component.program("node", "apt-get install nodejs npm")
    component.folder(_FOLDER / "node_modules" / "oidc-provider", "make setup")
    port, directory = free_port(), tmp_path_factory.mktemp("oauth-server")
    certificate = tls_authority.certificate("127.0.0.1")
    key = strangers_key("ES256")
    (directory / "jwk.json").write_text(json.dumps(key.jwk()))
    with (
        serving(
            [
                node,
                str(_FOLDER / "oauth_server.mjs"),
                str(port),
                str(certificate.key_file),
                str(certificate.chain_file),
                str(directory / "jwk.json"),
            ],
            lambda: listening(port),
            directory=directory,
            environment={"PATH": os.environ["PATH"]},
        ),
        httpx.Client(verify=tls_authority.client_context(), trust_env=False, timeout=30) as client,
    ):
        signer = key.private_pem()
        yield OAuthServer(f"https://127.0.0.1:{port}", tls_authority.ca_file, client, signer)
