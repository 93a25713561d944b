"""The main job against AWS's API: a real STS, IAM and S3, and AWS's own clients, unmodified."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import boto3
import jwt
import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError

from tests.components.moto import REGION
from tests.fakes.sts import answering
from tests.integration.running_broker import COMMAND, BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.gate import Gate
    from tests.components.moto import Moto

POLICY: Final = """
services:
  aws:
    provider: aws_sts
    role_arn: {role}
    region: {region}
    endpoint_url: {url}
    insecure_http: true
    credentials:
      type: keys
      access_key_id: "embedded:aws-id"
      secret_access_key: "embedded:aws-key"
scopes:
  artifacts.read:
    service: aws
    delivery: [credential]
    session_policy:
      - effect: Allow
        actions: ["s3:GetObject"]
        resources: ["arn:aws:s3:::{bucket}/{{agent}}/*"]
    session_tags: {{agent: "{{agent}}"}}
agents:
  coder:
    trust: [{{source: local}}]
    scopes: [artifacts.read]
    max_ttl: 8h
"""


@dataclass(frozen=True)
class Site:
    """A broker whose agent `coder` may read `coder/report` of a bucket."""

    broker: RunningBroker
    moto: Moto
    bucket: str
    folder: Path

    def token(self, ttl: str = "1h") -> str:
        words = ("--agent", "coder", "--scope", "artifacts.read", "--task", "nightly build")
        return self.broker.home.run("token", *words, "--ttl", ttl).strip()

    def environment(self, **more: str) -> dict[str, str]:
        """Return what an AWS client sees, and nothing of whoever runs the tests."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.moto.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            **more,
        }

    def container(self, token: str) -> dict[str, str]:
        """Return the environment of a program that collects its session by itself."""
        return self.environment(
            AWS_CONTAINER_CREDENTIALS_FULL_URI=(
                f"{self.broker.home.control_url}/credentials/aws/artifacts.read"
            ),
            AWS_CONTAINER_AUTHORIZATION_TOKEN=token,
        )

    def leases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.broker.home.run("leases", "--json"))
        return found


@pytest.fixture(scope="module")
def site(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("aws")
    bucket = moto.bucket(**{"coder/report": "all is well"})
    own = moto.user("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
    reads = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    home = BrokerHome.create(folder / "home", log_level="debug")
    home.run("secret", "put", "aws-id", stdin=own.key.id)
    home.run("secret", "put", "aws-key", stdin=own.key.secret)
    home.policy(
        POLICY.format(role=moto.role(own.arn, reads), region=REGION, url=moto.url, bucket=bucket)
    )
    home.run("agents", "enroll", "coder")
    with running_broker(home) as running:
        yield Site(running, moto, bucket, folder)


def _set(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_boto3_finds_its_session_by_itself_and_s3_takes_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, site.container(site.token()))
    s3 = boto3.Session().client("s3")
    for _ in range(3):
        answer = s3.get_object(Bucket=site.bucket, Key="coder/report")
        assert answer["Body"].read() == b"all is well"
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=site.bucket, Key="coder/report", Body=b"changed")


def test_boto3_with_a_short_token_asks_often_and_is_given_one_session(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(site.leases())
    _set(monkeypatch, site.container(site.token("5m")))
    s3 = boto3.Session().client("s3")
    for _ in range(25):
        s3.get_object(Bucket=site.bucket, Key="coder/report")
    assert len(site.leases()) == before + 1


def test_boto3_without_a_good_token_has_no_session(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, site.container("not-a-token"))
    with pytest.raises(CredentialRetrievalError, match=r"401 .*not a task token"):
        boto3.Session().client("s3")


def _aws(program: str, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [program, *words], env=environment, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_aws_command_line_finds_its_session_by_itself(component: Gate, site: Site) -> None:
    program = component.program("aws", "make setup")
    told = _aws(program, site.container(site.token()), "sts", "get-caller-identity")
    name = json.loads(told)["Arn"].rpartition("/")[2]
    assert name.startswith("coder@nightly-build-")


def test_the_aws_command_line_runs_the_broker_for_its_session(component: Gate, site: Site) -> None:
    program = component.program("aws", "make setup")
    config = site.folder / "config"
    config.write_text(
        "[profile artifacts]\n"
        f"credential_process = {COMMAND} credential aws artifacts.read --agent coder --ttl 1h\n"
    )
    own = {
        "AWS_CONFIG_FILE": str(config),
        "BROKER_HOME": str(site.broker.home.path),
        "BROKER_CONTROL_PORT": site.broker.home.environment["BROKER_CONTROL_PORT"],
    }
    words = ("s3", "cp", f"s3://{site.bucket}/coder/report", "-", "--profile", "artifacts")
    assert _aws(program, site.environment(**own), *words) == "all is well"


def test_a_session_is_on_record_with_its_grant_and_without_its_secret(site: Site) -> None:
    token = site.token()
    answer = site.broker.http.post(
        f"{site.broker.home.control_url}/credentials",
        json={"scope": "artifacts.read"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200, answer.text
    session = answer.json()["credential"]
    lease = next(one for one in site.leases() if one["lease"] == answer.json()["lease"])
    assert (lease["state"], lease["scope"]) == ("delivered", "artifacts.read")
    told = site.broker.home.run("logs", "--json") + (site.folder / "output.log").read_text()
    assert answer.json()["lease"] in told
    for part in ("SecretAccessKey", "SessionToken"):
        assert session[part] not in told


def test_a_session_that_nobody_can_revoke_is_denied_on_its_role_instead(site: Site) -> None:
    token = site.token()
    answer = site.broker.http.post(
        f"{site.broker.home.control_url}/credentials",
        json={"scope": "artifacts.read"},
        headers={"Authorization": f"Bearer {token}"},
    )
    lease = next(one for one in site.leases() if one["lease"] == answer.json()["lease"])
    person = site.moto.user("iam:*")
    own = {
        "AWS_ENDPOINT_URL_IAM": site.moto.url,
        "AWS_ACCESS_KEY_ID": person.key.id,
        "AWS_SECRET_ACCESS_KEY": person.key.secret,
    }
    home = BrokerHome(site.broker.home.path, {**site.broker.home.environment, **own})
    told = json.loads(home.run("revoke", lease["grant"], "--aws-deny-apply", "--json"))
    (place,) = told["outliving"]
    assert place["credentials"][0]["remaining"] > 3000
    role = place["place"].rpartition("/")[2]
    found = site.moto.iam().get_role_policy(RoleName=role, PolicyName="agent-token-broker-deny")
    # moto stores it, and does not act on it: it knows no source identities.
    assert found["PolicyDocument"] == place["policy"]
    assert lease["grant"] in json.dumps(found["PolicyDocument"])


def test_the_broker_vouches_for_itself_by_a_token_that_others_can_verify(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("aws-federated")
    home = BrokerHome.create(folder / "home")
    home.run("agents", "enroll", "coder")
    own = "arn:aws:iam::123456789012:role/broker"
    ends = datetime.now(UTC) + timedelta(seconds=900)
    with answering(expiration=ends.strftime("%Y-%m-%dT%H:%M:%SZ")) as sts:
        text = POLICY.format(
            role=own.replace("broker", "task"), region=REGION, url=sts.url, bucket="b"
        )
        keys, rest = text.index("    credentials:"), text.index("scopes:")
        identity = f"    credentials: {{type: broker_identity, role_arn: {own}}}\n"
        home.policy(text[:keys] + identity + text[rest:])
        with running_broker(home) as running:
            words = ("--agent", "coder", "--scope", "artifacts.read", "--ttl", "15m")
            token = home.run("token", *words).strip()
            answer = running.http.post(
                f"{home.control_url}/credentials",
                json={"scope": "artifacts.read"},
                headers={"Authorization": f"Bearer {token}"},
            )
            discovery = running.http.get(
                f"{home.control_url}/.well-known/openid-configuration"
            ).json()
            keys_of_ours = jwt.PyJWKSet.from_dict(running.http.get(discovery["jwks_uri"]).json())
            refused = running.call(sts.calls[0]["WebIdentityToken"], "GET", "/aws/b")
    assert answer.status_code == 200, answer.text
    # The SDK renews a session as short as this one at once, by another token.
    first, *_, last = sts.calls
    assert (first["Action"], last["Action"]) == ("AssumeRoleWithWebIdentity", "AssumeRole")
    vouched = first["WebIdentityToken"]
    claims = jwt.decode(
        vouched,
        keys_of_ours[jwt.get_unverified_header(vouched)["kid"]],
        algorithms=discovery["id_token_signing_alg_values_supported"],
        audience="sts.amazonaws.com",
        issuer=discovery["issuer"],
    )
    assert claims["sub"] == "agent-token-broker"
    assert refused.status_code == 401  # it is no task token
