"""npm's `oidc-provider` as the issuer of workload identities."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.components.gate import Gate
    from tests.components.tls import TestAuthority

_FOLDER: Final = Path(__file__).resolve().parent


@dataclass(frozen=True)
class OidcIssuer:
    """A running issuer: `url` is its `iss`; clients trust it by `ca_file`."""

    url: str
    ca_file: Path
    client: httpx.Client

    def token(
        self, audience: str, *, claims: Mapping[str, Any] | None = None, lifetime: int = 300
    ) -> str:
        """Return a fresh RS256 token for `audience`; `claims` are added or replaced."""
        answer = self.client.post(
            f"{self.url}/token",
            auth=("workload", "workload-secret"),
            data={"grant_type": "client_credentials", "resource": audience},
            headers={
                "x-test-claims": json.dumps(dict(claims or {})),
                "x-test-lifetime": str(lifetime),
            },
        )
        answer.raise_for_status()
        token: str = answer.json()["access_token"]
        return token


@pytest.fixture(scope="session")
def oidc_issuer(
    component: Gate, tls_authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OidcIssuer]:
    """A real OpenID Connect issuer on https://127.0.0.1."""
    node = component.program("node", "apt-get install nodejs npm")
    component.folder(_FOLDER / "node_modules" / "oidc-provider", "make setup")
    port = free_port()
    certificate = tls_authority.certificate("127.0.0.1")
    with (
        serving(
            [
                node,
                str(_FOLDER / "oidc_issuer.mjs"),
                str(port),
                str(certificate.key_file),
                str(certificate.chain_file),
            ],
            lambda: listening(port),
            directory=tmp_path_factory.mktemp("oidc-issuer"),
            environment={"PATH": os.environ["PATH"]},
        ),
        httpx.Client(verify=tls_authority.client_context(), trust_env=False, timeout=30) as client,
    ):
        yield OidcIssuer(f"https://127.0.0.1:{port}", tls_authority.ca_file, client)
