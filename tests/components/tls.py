"""A certificate authority that the tests trust and nothing else does."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ServerCertificate:
    """A server's private key and certificate chain, as PEM files."""

    key_file: Path
    chain_file: Path

    def context(self) -> ssl.SSLContext:
        """Return a context to serve with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file, self.key_file)
        return context


class TestAuthority:
    """Issue server certificates; `ca_file` is what a client needs to trust them."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self.ca_file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.ca_file)

    def certificate(self, *names: str) -> ServerCertificate:
        """Return a certificate for these host names and addresses."""
        issued = self._authority.issue_cert(*names)
        stem = names[0].replace("*", "_")
        key_file, chain_file = self._directory / f"{stem}.key", self._directory / f"{stem}.pem"
        issued.private_key_pem.write_to_path(key_file)
        chain_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key_file.chmod(0o600)
        return ServerCertificate(key_file, chain_file)


@pytest.fixture(scope="session")
def tls_authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """The test run's own certificate authority."""
    return TestAuthority(tmp_path_factory.mktemp("tls"))
