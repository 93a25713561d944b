"""moto, a server that speaks AWS's IAM, STS and S3 and checks who asks, and for what.

It verifies signatures and enforces trust and role policies; session policies it does not.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config

from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_iam import IAMClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

    from tests.components.gate import Gate

ACCOUNT: Final = "123456789012"
REGION: Final = "eu-west-1"

_names: Final = count(1)


@dataclass(frozen=True)
class AccessKey:
    """What signs a request; `token` goes with the keys of a session."""

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class User:
    """An IAM user and its access key."""

    arn: str
    key: AccessKey


@dataclass(frozen=True)
class Moto:
    """A running server; `admin` may do everything."""

    url: str
    admin: AccessKey

    def s3(self, key: AccessKey) -> S3Client:
        """Return a client of S3 that signs with a key."""
        return boto3.client("s3", **self._options(key))

    def iam(self, key: AccessKey | None = None) -> IAMClient:
        """Return a client of IAM that signs with a key."""
        return boto3.client("iam", **self._options(key or self.admin))

    def sts(self, key: AccessKey) -> STSClient:
        """Return a client of STS that signs with a key."""
        return boto3.client("sts", **self._options(key))

    def user(self, *actions: str) -> User:
        """Make a user that may do these on everything."""
        iam, name = self.iam(), f"user-{next(_names)}"
        arn = iam.create_user(UserName=name)["User"]["Arn"]
        if actions:
            statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document(statement))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return User(arn, AccessKey(key["AccessKeyId"], key["SecretAccessKey"]))

    def role(self, trusted: str, *statements: dict[str, Any]) -> str:
        """Make a role that one principal may assume and that may do this; return its ARN."""
        iam, name = self.iam(), f"role-{next(_names)}"
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": trusted},
            "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
        }
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))
        if statements:
            iam.put_role_policy(
                RoleName=name, PolicyName="own", PolicyDocument=document(*statements)
            )
        return role["Role"]["Arn"]

    def bucket(self, **objects: str) -> str:
        """Make a bucket with some objects; return its name."""
        s3, name = self.s3(self.admin), f"bucket-{next(_names)}"
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        for key, text in objects.items():
            s3.put_object(Bucket=name, Key=key, Body=text.encode())
        return name

    def _options(self, key: AccessKey) -> dict[str, Any]:
        return {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": key.id,
            "aws_secret_access_key": key.secret,
            "aws_session_token": key.token,
            "config": Config(retries={"total_max_attempts": 1}, proxies={}),
        }


def document(*statements: dict[str, Any]) -> str:
    """Return statements as an IAM policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _enforce(url: str) -> None:
    request = Request(  # noqa: S310 - our own server
        f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
    )
    with urlopen(request) as answer:  # noqa: S310 - the same
        assert answer.status == 200


@pytest.fixture(scope="session")
def moto(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One server for the whole run; tests make their own users, roles and buckets."""
    program = component.program("moto_server", "make setup")
    directory, port = tmp_path_factory.mktemp("moto"), free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        lambda: listening(port),
        directory=directory,
        environment={"PATH": os.environ["PATH"], "HOME": str(directory)},
    ):
        admin = Moto(url, AccessKey("bootstrap", "bootstrap")).user("*")
        _enforce(url)
        yield Moto(url, admin.key)
