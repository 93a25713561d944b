"""Make what `docker compose up` needs and nobody should make by hand; what is there stays.

Certificates that this set of containers alone trusts, passwords, and the broker's home with an
agent `demo`, whose private key goes to the agent. Files are readable by their container alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

FILES = Path(os.environ.get("FILES", "/files"))
HOME = Path(os.environ.get("BROKER_HOME", "~/.agent-token-broker")).expanduser()
AGENT = "demo"
_LIFE = timedelta(days=365)


def main() -> None:
    """Make what is missing."""
    password, api_key = FILES / "postgres" / "password", FILES / "upstream" / "api-key"
    if not password.exists():
        _write(password, secrets.token_urlsafe(24).encode(), shared=True)
    if not api_key.exists():
        _write(api_key, b"sk_demo_" + secrets.token_urlsafe(24).encode())
    if not (FILES / "broker" / "ca.pem").exists():
        _certificates()
    if not (HOME / "keys").exists():
        words = [sys.executable, "-m", "broker.cli", "init", "--yes", "--agent", AGENT]
        subprocess.run(words, check=True)  # noqa: S603 - our own program
    key = FILES / "agent" / f"{AGENT}.pem"
    if not key.exists():
        shutil.move(HOME / "agents" / key.name, key)


def _certificates() -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "docker compose")])
    root = _certificate(name, name, authority, authority, x509.BasicConstraints(True, 0))
    for host in ("openbao", "upstream"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        leaf = _certificate(subject, name, key, authority, names)
        folder, shared = FILES / host, host == "openbao"
        _write(folder / "cert.pem", leaf.public_bytes(serialization.Encoding.PEM), shared=shared)
        _write(folder / "key.pem", _pem(key), shared=shared)
    # Last: it says that all of them are there.
    _write(FILES / "broker" / "ca.pem", root.public_bytes(serialization.Encoding.PEM))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    critical = isinstance(extension, x509.BasicConstraints)
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .add_extension(extension, critical=critical)
        .add_extension(key_id, critical=False)
        .add_extension(signer_id, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Write a file that its owner, or its group too, can read, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600, exist_ok=False)
    new.write_bytes(content)
    new.chmod(0o640 if shared else 0o400)
    new.replace(path)


if __name__ == "__main__":
    main()
