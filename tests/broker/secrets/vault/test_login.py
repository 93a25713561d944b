from __future__ import annotations

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import ConfigurationError, SecretUnavailable
from broker.files import create_private, replace_private
from broker.secrets.vault.client import VaultConnection
from broker.secrets.vault.login import POD_TOKEN, JwtLogin, VaultToken, login_from
from broker.settings import VaultSettings
from tests.fakes.vault import answer, fake_vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.components.openbao import OpenBao
    from tests.components.tls import ServerCertificate, TestAuthority


@pytest.fixture
async def connection(openbao: OpenBao) -> AsyncIterator[VaultConnection]:
    connection = VaultConnection(VaultSettings(address=openbao.address))
    yield connection
    await connection.close()


@pytest.fixture
def policy(openbao: OpenBao) -> str:
    return openbao.policy('path "kv/*" { capabilities = ["read"] }')


def approle(directory: Path, **more: Any) -> VaultSettings:
    return VaultSettings(
        address="https://unused",
        login="approle",
        role_id_file=directory / "role-id",
        secret_id_file=directory / "secret-id",
        **more,
    )


def deliver(directory: Path, role_id: str, secret_id: str) -> None:
    replace_private(directory / "role-id", f"{role_id}\n".encode())
    replace_private(directory / "secret-id", f"{secret_id}\n".encode())


def policies(bao: OpenBao, token: VaultToken) -> list[str]:
    found = bao.admin.auth.token.lookup(token.secret.reveal().decode())
    return list(found["data"]["policies"])


def wrap(bao: OpenBao, path: str, **body: str) -> str:
    """Return a wrapping token for the answer of `path`."""
    answer = bao.admin.adapter.post(f"/v1/{path}", json=body, headers={"X-Vault-Wrap-TTL": "60"})
    return str(answer["wrap_info"]["token"])


async def test_a_token_from_a_file(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    issued = openbao.admin.auth.token.create(policies=[policy], ttl="5m", renewable=True)
    token_file = tmp_path / "token"
    create_private(token_file, issued["auth"]["client_token"].encode() + b"\n")
    login = login_from(VaultSettings(token_file=token_file))
    token = await login.token(connection)
    assert 290 <= token.ttl <= 300
    assert (token.renewable, token.ours) == (True, False)

    replace_private(token_file, b"hvs.canary-unknown")
    with pytest.raises(SecretUnavailable, match=rf"write a valid token to {token_file}") as caught:
        await login.token(connection)
    assert "canary" not in str(caught.value)


async def test_a_root_token_does_not_end(
    openbao: OpenBao, connection: VaultConnection, tmp_path: Path
) -> None:
    create_private(tmp_path / "token", openbao.root_token.encode())
    token = await login_from(VaultSettings(token_file=tmp_path / "token")).token(connection)
    assert (token.ttl, token.renewable) == (0, False)


async def test_a_plain_secret_id(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    role = openbao.approle(policy, ttl="10m")
    secret_id = openbao.admin.sys.unwrap(role.wrapping_token)["data"]["secret_id"]
    deliver(tmp_path, role.role_id, secret_id)
    login = login_from(approle(tmp_path))
    token = await login.token(connection)
    assert policy in policies(openbao, token)
    assert (token.ttl, token.renewable, token.ours) == (600, True, True)
    with pytest.raises(SecretUnavailable, match="the secret_id has been used up") as caught:
        await login.token(connection)
    assert secret_id not in str(caught.value)


async def test_a_wrapped_secret_id_is_unwrapped_once_and_kept(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    role = openbao.approle(policy, secret_id_uses=2)
    deliver(tmp_path, role.role_id, role.wrapping_token)
    login = login_from(approle(tmp_path, secret_id_wrapped=True))
    for _ in range(2):
        assert policy in policies(openbao, await login.token(connection))
    with pytest.raises(SecretUnavailable, match=r"used up.*: write a new wrapping token to"):
        await login.token(connection)

    another = openbao.approle(policy)
    deliver(tmp_path, another.role_id, another.wrapping_token)
    assert policy in policies(openbao, await login.token(connection))


async def test_a_wrapping_token_that_somebody_used_raises_the_alarm(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    role = openbao.approle(policy)
    openbao.admin.sys.unwrap(role.wrapping_token)
    deliver(tmp_path, role.role_id, role.wrapping_token)
    login = login_from(approle(tmp_path, secret_id_wrapped=True))
    with pytest.raises(SecretUnavailable, match="somebody else has the secret_id: destroy it"):
        await login.token(connection)


async def test_a_wrapping_token_of_another_origin_is_not_unwrapped(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    role = openbao.approle(policy)
    swapped = wrap(openbao, "sys/wrapping/wrap", secret_id="theirs")
    deliver(tmp_path, role.role_id, swapped)
    login = login_from(approle(tmp_path, secret_id_wrapped=True))
    with pytest.raises(SecretUnavailable, match=r"'sys/wrapping/wrap'\. It may have been swapped"):
        await login.token(connection)
    assert openbao.admin.sys.unwrap(swapped)["data"] == {"secret_id": "theirs"}


async def test_a_wrapping_token_of_another_role_is_not_unwrapped(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    role = openbao.approle(policy)
    deliver(tmp_path, role.role_id, role.wrapping_token)
    login = login_from(approle(tmp_path, secret_id_wrapped=True, role="payments"))
    with pytest.raises(SecretUnavailable, match="may have been swapped"):
        await login.token(connection)


def public_pem(private: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(encoding, form).decode()


async def test_a_workloads_jwt(
    openbao: OpenBao, connection: VaultConnection, policy: str, tmp_path: Path
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    openbao.admin.sys.enable_auth_method("jwt", path="workloads")
    openbao.admin.auth.jwt.configure(
        jwt_validation_pubkeys=[public_pem(private)],
        jwt_supported_algs=["ES256"],
        path="workloads",
    )
    openbao.admin.auth.jwt.create_role(
        name="broker",
        role_type="jwt",
        allowed_redirect_uris=[],
        user_claim="sub",
        bound_audiences=["vault"],
        token_policies=[policy],
        token_ttl="5m",
        path="workloads",
    )
    claims = {"sub": "broker", "aud": "vault", "exp": int(time.time()) + 60}
    token_file = tmp_path / "token"
    token_file.write_text(jwt.encode(claims, private, algorithm="ES256"))
    login = login_from(
        VaultSettings(login="jwt", role="broker", mount="workloads", token_file=token_file)
    )
    token = await login.token(connection)
    assert policy in policies(openbao, token)
    assert (token.ttl, token.ours) == (300, True)

    wrong = jwt.encode({**claims, "aud": "other"}, private, algorithm="ES256")
    token_file.write_text(wrong)
    with pytest.raises(SecretUnavailable, match="role 'broker' exists at auth/workloads") as e:
        await login.token(connection)
    assert wrong not in str(e.value)


class TokenReviewer(BaseHTTPRequestHandler):
    """The one endpoint of a Kubernetes API server that the auth method asks."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = body["spec"]["token"] == self.server.token  # type: ignore[attr-defined]
        user = {"username": "system:serviceaccount:prod:broker", "uid": "u-1"}
        status = {"authenticated": known, "user": user if known else {}}
        content = json.dumps({**body, "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def kubernetes_api(token: str, certificate: ServerCertificate) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), TokenReviewer)
    server.socket = certificate.context().wrap_socket(server.socket, server_side=True)
    server.token = token  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_pods_token(
    openbao: OpenBao,
    connection: VaultConnection,
    policy: str,
    tmp_path: Path,
    tls_authority: TestAuthority,
) -> None:
    now = int(time.time())
    service_account = {
        "iss": "kubernetes/serviceaccount",
        "sub": "system:serviceaccount:prod:broker",
        "iat": now - 10,
        "nbf": now - 10,
        "exp": now + 600,
        "kubernetes.io": {
            "namespace": "prod",
            "serviceaccount": {"name": "broker", "uid": "u-1"},
        },
    }
    private = ec.generate_private_key(ec.SECP256R1())
    pod_token = jwt.encode(service_account, private, algorithm="ES256")
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text(pod_token)
    (tmp_path / "token").symlink_to("..data/token")  # as the kubelet projects it
    with kubernetes_api(pod_token, tls_authority.certificate("127.0.0.1")) as host:
        openbao.admin.sys.enable_auth_method("kubernetes", path="cluster")
        auth = openbao.admin.auth.kubernetes
        auth.configure(
            kubernetes_host=host,
            kubernetes_ca_cert=tls_authority.ca_file.read_text(),
            token_reviewer_jwt=pod_token,
            disable_local_ca_jwt=True,
            mount_point="cluster",
        )
        auth.create_role(
            "broker", ["broker"], ["prod"], policies=[policy], ttl="5m", mount_point="cluster"
        )
        login = login_from(
            VaultSettings(
                login="kubernetes",
                role="broker",
                mount="cluster",
                token_file=tmp_path / "token",
            )
        )
        token = await login.token(connection)
        assert policy in policies(openbao, token)
        assert token.ttl == 300

        (tmp_path / "..data" / "token").write_text(
            jwt.encode({**service_account, "jti": "other"}, private, algorithm="ES256")
        )
        with pytest.raises(SecretUnavailable, match="role 'broker' exists at auth/cluster"):
            await login.token(connection)


def test_kubernetes_finds_the_pods_token_by_itself() -> None:
    login = login_from(VaultSettings(login="kubernetes", role="broker"))
    assert isinstance(login, JwtLogin)
    assert login._file == POD_TOKEN


@pytest.mark.parametrize("mount", ["../sys", "a//b", "a?b", "a b", "%2e"])
def test_a_mount_that_leads_elsewhere_is_refused(tmp_path: Path, mount: str) -> None:
    with pytest.raises(ConfigurationError, match=r"vault.mount is .*; expected where the auth"):
        login_from(approle(tmp_path, mount=mount))


@pytest.mark.parametrize("role", ["a/b", "a?b", "..%2f", ""])
def test_a_role_that_is_no_name_is_refused(role: str) -> None:
    with pytest.raises(ConfigurationError, match=r"vault.role is"):
        login_from(VaultSettings(login="kubernetes", role=role))


@pytest.mark.parametrize("body", [{"auth": None}, {}, {"auth": {"client_token": 7}}], ids=str)
async def test_an_answer_without_a_token_is_refused(tmp_path: Path, body: object) -> None:
    deliver(tmp_path, "role", "secret")
    async with fake_vault(answer(200, body)) as vault:
        connection = VaultConnection(VaultSettings(address=vault.address))
        with pytest.raises(SecretUnavailable, match="as Vault does"):
            await login_from(approle(tmp_path)).token(connection)
        await connection.close()
