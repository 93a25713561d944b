"""kubectl itself, with the broker as its exec plugin; and the same cluster through the gateway.

The service accounts are those that OpenBao's Kubernetes engine makes in a fake API server, the
client certificates its PKI's.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.components.process import wait_until
from tests.fakes.kubernetes import serving_kubernetes
from tests.integration.running_broker import COMMAND, BrokerHome, running_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.components.gate import Gate
    from tests.components.openbao import OpenBao
    from tests.components.tls import TestAuthority
    from tests.fakes.kubernetes import FakeKubernetes
    from tests.integration.running_broker import RunningBroker

PODS: Final = "/api/v1/namespaces/ci/pods"
POLICY: Final = """
services:
  cluster:
    provider: vault_dynamic
    mount: kubernetes
    base_url: {url}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, field: service_account_token}}
  certificates: {{provider: vault_dynamic, mount: clients}}
scopes:
  pods.read:
    service: cluster
    delivery: [proxy, credential]
    allow: ["GET /api/v1/namespaces/ci/pods"]
    path: creds/ci
    parameters: {{kubernetes_namespace: ci}}
    ttl_parameter: ttl
  pods.certified:
    service: certificates
    delivery: [credential]
    path: issue/task
    parameters: {{common_name: "agent-{{agent}}"}}
    ttl_parameter: ttl
agents:
  my-agent:
    trust: [{{source: local, claims: {{sub: my-agent}}}}]
    scopes: [pods.read, pods.certified]
"""


@pytest.fixture
def cluster(
    openbao: OpenBao, tls_authority: TestAuthority, tmp_path: Path
) -> Iterator[FakeKubernetes]:
    """A cluster that takes certificates of OpenBao's PKI, and accounts of its engine's."""
    admin = openbao.admin
    admin.sys.enable_secrets_engine("pki", path="clients")
    root = admin.secrets.pki.generate_root(
        "internal", "clients", {"ttl": "1h"}, mount_point="clients"
    )
    role = {"allow_any_name": True, "enforce_hostnames": False, "generate_lease": True}
    admin.secrets.pki.create_or_update_role("task", role, mount_point="clients")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_text(root["data"]["certificate"])
    with serving_kubernetes(tls_authority, client_ca) as cluster:
        openbao.kubernetes(cluster)
        yield cluster
        for mount in ("kubernetes", "clients"):
            admin.sys.disable_secrets_engine(mount)


@pytest.fixture
def broker(openbao: OpenBao, cluster: FakeKubernetes, tmp_path: Path) -> Iterator[RunningBroker]:
    rights = (Path(__file__).parents[2] / "policies/vault/dynamic.hcl").read_text()
    for path in ("kubernetes/creds/ci", "clients/issue/task"):
        rights += f'path "{path}" {{ capabilities = ["update"] }}\n'
    login = openbao.admin.auth.token.create(policies=[openbao.policy(rights)], ttl="30m")
    proof = tmp_path / "vault-token"
    proof.touch(mode=0o600)
    proof.write_text(login["auth"]["client_token"])
    home = BrokerHome.create(
        tmp_path / "broker" / "home",
        vault_address=openbao.address,
        vault_token_file=str(proof),
    )
    home.policy(POLICY.format(url=cluster.url, ca_file=cluster.ca_file))
    with running_broker(home) as running:
        yield running


def kubeconfig(cluster: FakeKubernetes, scope: str, version: str) -> str:
    """Return a kubeconfig whose user is whatever the broker mints under a scope."""
    plugin = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": COMMAND,
        "args": ["credential", "kubectl", scope],
        "interactiveMode": "Never",
    }
    place = {"server": cluster.url, "certificate-authority": cluster.ca_file}
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ci",
        "contexts": [
            {"name": "ci", "context": {"cluster": "ci", "user": "task", "namespace": "ci"}}
        ],
        "clusters": [{"name": "ci", "cluster": place}],
        "users": [{"name": "task", "user": {"exec": plugin}}],
    }
    return json.dumps(document)


@pytest.fixture
def pods(
    component: Gate, broker: RunningBroker, cluster: FakeKubernetes, tmp_path: Path
) -> Callable[[str, str], str]:
    """Have kubectl read the pods under a scope; return what it printed."""
    kubectl = component.program("kubectl", "apt-get install kubernetes-client")

    def read(scope: str, version: str) -> str:
        if version == "v1" and not _knows_v1(kubectl):
            pytest.skip("this kubectl knows v1beta1 alone")
        config = tmp_path / "kubeconfig"
        config.write_text(kubeconfig(cluster, scope, version))
        config.chmod(0o600)
        ran = subprocess.run(
            [kubectl, f"--kubeconfig={config}", "get", "--raw", PODS],
            env={**broker.home.environment, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return read


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("scope", "version", "user"),
    [
        ("pods.read", "v1", "v-token"),
        ("pods.read", "v1beta1", "v-token"),
        ("pods.certified", "v1", "CN=agent-my-agent"),
    ],
)
def test_kubectl_is_whom_the_broker_says(
    pods: Callable[[str, str], str], scope: str, version: str, user: str
) -> None:
    (pod,) = json.loads(pods(scope, version))["items"]
    assert pod["metadata"]["name"].startswith(f"seen-by-{user}")


def _knows_v1(kubectl: str) -> bool:
    told = subprocess.check_output([kubectl, "version", "--client", "-o", "json"])
    minor = json.loads(told)["clientVersion"]["minor"].rstrip("+")
    return int(minor) >= 22


@pytest.mark.timeout(120)
def test_what_stays_inside_is_minted_once_and_ended_with_its_grant(
    broker: RunningBroker, cluster: FakeKubernetes
) -> None:
    token = broker.home.run("token", "--scope", "pods.read").strip()
    answers = [broker.call(token, "GET", f"/cluster{PODS}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len(cluster.accounts) == 1
    (lease,) = json.loads(broker.home.run("leases", "--json"))
    assert (lease["state"], lease["delivery"]) == ("used", "proxy")
    assert broker.call(token, "DELETE", f"/cluster{PODS}").status_code == 403
    broker.home.run("revoke", lease["grant"], "--yes")
    wait_until(lambda: not cluster.accounts, "the service account to be deleted", 30)
    assert broker.call(token, "GET", f"/cluster{PODS}").status_code == 401

    def over() -> str:
        (lease,) = json.loads(broker.home.run("leases", "--all", "--json"))
        return str(lease["state"])

    wait_until(lambda: over() == "revoked", "the lease to be over", 30)
