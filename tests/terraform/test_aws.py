"""terraform/examples/aws: really applied, used by a running broker, and destroyed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from botocore.exceptions import ClientError

from tests.components.moto import REGION, AccessKey
from tests.integration.running_broker import BrokerHome, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.components.moto import Moto
    from tests.components.terraform import TerraformTree

ISSUER: Final = "https://oidc.cluster.example.com"
SUBJECT: Final = "system:serviceaccount:agents:broker"
OVERRIDE: Final = """
provider "aws" {{
  region                      = "{region}"
  access_key                  = "{id}"
  secret_key                  = "{secret}"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  endpoints {{
    iam = "{url}"
    sts = "{url}"
  }}
}}

module "broker" {{
  principal_arns = ["{principal}"]
}}
"""
AGENTS: Final = """
agents:
  coder: {trust: [{source: local}], scopes: [artifacts.use]}
"""


@dataclass(frozen=True)
class Applied:
    """The example, applied; `broker` is a session of the broker's own role."""

    bucket: str
    policy: str
    broker: AccessKey


@pytest.fixture(scope="module")
def applied(terraform: TerraformTree, moto: Moto) -> Iterator[Applied]:
    example = terraform.at("examples/aws")
    example.init()
    # moto takes no web identities while it checks signatures: a user stands in for the issuer.
    user = moto.user("sts:AssumeRole")
    admin = moto.admin
    override = OVERRIDE.format(
        region=REGION, id=admin.id, secret=admin.secret, url=moto.url, principal=user.arn
    )
    (example.folder / "override.tf").write_text(override)
    bucket = moto.bucket(report="all is well")
    given = (f"-var=issuer={ISSUER}", f"-var=bucket={bucket}")
    example.run("apply", "-auto-approve", *given)
    role = moto.iam().get_role(RoleName="agent-token-broker")["Role"]["Arn"]
    opened = moto.sts(user.key).assume_role(RoleArn=role, RoleSessionName="broker")
    own = opened["Credentials"]
    broker = AccessKey(own["AccessKeyId"], own["SecretAccessKey"], own["SessionToken"])
    yield Applied(bucket, example.run("output", "-raw", "policy_yaml"), broker)
    example.run("destroy", "-auto-approve", "-refresh=false", *given)
    for name in ("artifacts", "agent-token-broker"):
        with pytest.raises(ClientError, match="NoSuchEntity"):
            moto.iam().get_role(RoleName=name)
    assert moto.iam().list_open_id_connect_providers()["OpenIDConnectProviderList"] == []


@contextmanager
def known_by_its_session(moto: Moto, broker: AccessKey) -> Iterator[None]:
    """Let the task role trust the session of the broker's role by name, as moto needs it.

    AWS takes whoever has a session of a role for that role; moto does not.
    """
    iam, name = moto.iam(), "artifacts"
    before = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
    role = iam.get_role(RoleName="agent-token-broker")["Role"]["Arn"]
    after = before.replace(role, moto.sts(broker).get_caller_identity()["Arn"])
    assert after != before
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=after)
    yield
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=before)


@pytest.fixture(scope="module")
def session(applied: Applied, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> AccessKey:
    """A session that an agent collects from a broker whose policy is the example's output."""
    folder: Path = tmp_path_factory.mktemp("broker")
    document = yaml.safe_load(applied.policy)
    service = document["services"]["artifacts"]
    assert service["credentials"]["type"] == "web_identity"
    service["credentials"] = {"type": "default"}
    service |= {"endpoint_url": moto.url, "insecure_http": True}
    home = BrokerHome.create(folder / "home")
    home.policy(json.dumps(document))
    (home.path / "policies" / "agents.yaml").write_text(AGENTS)
    home.run("agents", "enroll", "coder")
    chain = {
        "AWS_ACCESS_KEY_ID": applied.broker.id,
        "AWS_SECRET_ACCESS_KEY": applied.broker.secret,
        "AWS_SESSION_TOKEN": str(applied.broker.token),
    }
    with (
        known_by_its_session(moto, applied.broker),
        running_broker(replace(home, environment={**home.environment, **chain})),
    ):
        words = ("--agent", "coder", "--ttl", "1h")
        fields = json.loads(home.run("credential", "aws", "artifacts.use", *words))
    return AccessKey(fields["AccessKeyId"], fields["SecretAccessKey"], fields["SessionToken"])


def test_the_broker_opens_sessions_by_its_own_identity(
    applied: Applied, session: AccessKey, moto: Moto
) -> None:
    read = moto.s3(session).get_object(Bucket=applied.bucket, Key="report")
    assert read["Body"].read() == b"all is well"
    with pytest.raises(ClientError, match="AccessDenied"):
        moto.s3(session).put_object(Bucket=applied.bucket, Key="report", Body=b"changed")


def test_the_role_trusts_the_broker_alone_and_under_a_grants_name(
    applied: Applied, moto: Moto
) -> None:
    assert applied.bucket
    role = moto.iam().get_role(RoleName="artifacts")["Role"]
    broker = moto.iam().get_role(RoleName="agent-token-broker")["Role"]
    trusting: Any = role["AssumeRolePolicyDocument"]
    trust = {one["Sid"]: one for one in trusting["Statement"]}
    assert {one["Principal"]["AWS"] for one in trust.values()} == {broker["Arn"]}
    assert trust["BrokerOpensSessions"]["Condition"] == {
        "StringLike": {"sts:SourceIdentity": "?*", "aws:RequestTag/agent": "?*"}
    }
    assert trust["BrokerTagsSessions"]["Condition"] == {
        "ForAllValues:StringEquals": {"aws:TagKeys": "agent"}
    }
    ceiling = moto.iam().get_role_policy(RoleName="artifacts", PolicyName="ceiling")
    document: Any = ceiling["PolicyDocument"]
    effects = [(one["Effect"], one["Action"]) for one in document["Statement"]]
    assert effects[0] == ("Allow", "s3:GetObject")
    assert effects[1][0] == "Deny"
    assert "sts:AssumeRole" in effects[1][1]


def test_the_broker_is_whom_the_issuer_vouches_for_and_may_open_that_role_alone(
    applied: Applied, moto: Moto
) -> None:
    assert applied.bucket
    role = moto.iam().get_role(RoleName="agent-token-broker")["Role"]
    trusting: Any = role["AssumeRolePolicyDocument"]
    trust = {one["Sid"]: one for one in trusting["Statement"]}["WhoVouchesForTheBroker"]
    host = ISSUER.removeprefix("https://")
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert trust["Principal"]["Federated"].endswith(f":oidc-provider/{host}")
    assert trust["Condition"] == {
        "StringEquals": {f"{host}:aud": "sts.amazonaws.com", f"{host}:sub": SUBJECT}
    }
    own = moto.iam().get_role_policy(
        RoleName="agent-token-broker", PolicyName="open-sessions-of-task-roles"
    )
    document: Any = own["PolicyDocument"]
    task_role = moto.iam().get_role(RoleName="artifacts")["Role"]["Arn"]
    assert {one["Resource"] for one in document["Statement"]} == {task_role}
    assert document["Statement"][0]["Condition"] == {"StringLike": {"sts:SourceIdentity": "?*"}}
