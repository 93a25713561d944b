"""terraform/modules/aws-task-role: really applied, used by the broker, and destroyed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from botocore.exceptions import ClientError

from broker.policy.loader import Document, load_policy
from providers.aws_sts import PLUGIN
from providers.base import CredentialRequest, Dependencies, Mints, Secret
from tests.components.moto import REGION, AccessKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate
    from tests.components.moto import Moto, User

TERRAFORM: Final = Path(__file__).resolve().parents[2] / "terraform"
PLUGINS: Final = "TERRAFORM_PLUGINS"
"""Names a folder of Terraform providers, where their registry cannot be reached."""

OVERRIDE: Final = """
provider "aws" {{
  region                      = "{region}"
  access_key                  = "{id}"
  secret_key                  = "{secret}"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {{
    iam = "{url}"
    sts = "{url}"
  }}
}}
"""
REST: Final = """
identity_sources: {laptop: {type: local}}
agents:
  coder: {trust: [{source: laptop, claims: {sub: coder}}], scopes: [artifacts.use]}
"""


@dataclass(frozen=True)
class Terraform:
    """Terraform in a folder, with a home directory where it may leave things."""

    program: str
    folder: Path
    home: Path

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [self.program, *words],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "CHECKPOINT_DISABLE": "1",
                "TF_IN_AUTOMATION": "1",
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=100,
        )
        if done.returncode:
            raise RuntimeError(f"terraform {words[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Applied:
    """The example, applied."""

    terraform: Terraform
    broker: User
    bucket: str
    policy: str


@pytest.fixture(scope="module")
def applied(
    component: Gate, moto: Moto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Applied]:
    tmp_path = tmp_path_factory.mktemp("terraform-aws")
    shutil.copytree(TERRAFORM, tmp_path / "terraform")
    folder = tmp_path / "terraform" / "examples" / "aws-task-role"
    terraform = Terraform(component.program("terraform", "install Terraform"), folder, tmp_path)
    plugins = os.environ.get(PLUGINS)
    try:
        terraform.run("init", "-no-color", *([f"-plugin-dir={plugins}"] if plugins else []))
    except RuntimeError:
        # A registry out of reach is no fault of this machine's set-up, so CI passes too.
        pytest.skip(f"component missing: terraform provider hashicorp/aws (set {PLUGINS})")
    override = OVERRIDE.format(
        region=REGION, id=moto.admin.id, secret=moto.admin.secret, url=moto.url
    )
    (folder / "override.tf").write_text(override)
    bucket = moto.bucket(report="all is well")
    broker = moto.user("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
    given = (f"-var=broker_arn={broker.arn}", f"-var=bucket={bucket}", "-no-color")
    terraform.run("validate", "-no-color")
    terraform.run("apply", "-auto-approve", *given)
    yield Applied(terraform, broker, bucket, terraform.run("output", "-raw", "policy_yaml"))
    terraform.run("destroy", "-auto-approve", *given)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        moto.iam().get_role(RoleName="artifacts")


class Keys:
    """The broker's own access key."""

    def __init__(self, user: User) -> None:
        self.values = {"env:ID": user.key.id, "env:KEY": user.key.secret}

    async def read(self, reference: str) -> Secret:
        return Secret(self.values[reference].encode())


def test_every_file_is_formatted(component: Gate, tmp_path: Path) -> None:
    program = component.program("terraform", "install Terraform")
    Terraform(program, TERRAFORM, tmp_path).run("fmt", "-check", "-recursive")


async def test_the_output_is_a_policy_by_which_the_broker_opens_sessions(
    applied: Applied, moto: Moto
) -> None:
    document = yaml.safe_load(applied.policy)
    document["services"]["artifacts"] |= {
        "endpoint_url": moto.url,
        "insecure_http": True,
        "credentials": {
            "type": "keys",
            "access_key_id": "env:ID",
            "secret_access_key": "env:KEY",
        },
    }
    policy = load_policy(
        [Document("artifacts.yaml", json.dumps(document)), Document("rest.yaml", REST)]
    )
    service = policy.services["artifacts"]
    provider = PLUGIN.build(
        service.config, Dependencies(Keys(applied.broker), lambda: None, lambda: 0.0)
    )
    assert isinstance(provider, Mints)
    constraints = policy.scopes["artifacts.use"].constraints.fill({"agent": "coder"})
    minted = await provider.mint(
        CredentialRequest("artifacts", "coder", "grant-1", "artifacts.use", None, 3600, constraints)
    )
    session = AccessKey(*(one.reveal().decode() for one in minted.fields.values()))
    read = moto.s3(session).get_object(Bucket=applied.bucket, Key="report")
    assert read["Body"].read() == b"all is well"
    with pytest.raises(ClientError, match="AccessDenied"):
        moto.s3(session).put_object(Bucket=applied.bucket, Key="report", Body=b"changed")


def test_the_role_trusts_the_broker_alone_and_under_a_grants_name(
    applied: Applied, moto: Moto
) -> None:
    role = moto.iam().get_role(RoleName="artifacts")["Role"]
    trusting: Any = role["AssumeRolePolicyDocument"]
    trust = {one["Sid"]: one for one in trusting["Statement"]}
    assert {one["Principal"]["AWS"] for one in trust.values()} == {applied.broker.arn}
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
