"""The main job against AWS's API where no session leaves the broker: the gateway signs.

Agents use AWS's own clients, with keys that open nothing and the task token as session token.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.components.moto import REGION
from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from tests.components.gate import Gate
    from tests.components.moto import Moto


def policy(role: str, url: str, bucket: str) -> str:
    """Return a policy of one agent that may use a part of a bucket, and a queue."""
    own = {"access_key_id": "embedded:aws-id", "secret_access_key": "embedded:aws-key"}
    here = {"base_url": url, "insecure_http": True, "allow_private": True}

    def service(name: str) -> dict[str, Any]:
        return {
            "provider": "aws_sts",
            "role_arn": role,
            "region": REGION,
            "endpoint_url": url,
            "insecure_http": True,
            "credentials": {"type": "keys", **own},
            "api": {"service": name, **here},
        }

    def statement(resources: list[str], *actions: str) -> list[dict[str, Any]]:
        return [{"effect": "Allow", "actions": actions, "resources": resources}]

    rights = {
        "allow": [f"GET /{bucket}", f"* /{bucket}/in/**", f"PUT /{bucket}/out/*"],
        "deny": ["DELETE /**"],
        "session_policy": statement(
            [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            *("s3:GetObject", "s3:PutObject", "s3:ListBucket"),
        ),
    }
    queues = {
        "allow": ["POST /"],
        "session_policy": statement(["arn:aws:sqs:*:*:jobs"], "sqs:*"),
    }
    scopes = {
        "artifacts.use": {"service": "s3", **rights},
        "queues.use": {"service": "queues", **queues},
    }
    return json.dumps(
        {
            "services": {
                "s3": service("s3"),
                "queues": service("sqs"),
            },
            "scopes": scopes,
            "agents": {"coder": {"trust": [{"source": "local"}], "scopes": list(scopes)}},
        },
        indent=1,
    )


@dataclass(frozen=True)
class Site:
    """A broker whose agent `coder` may use a part of a bucket, and a queue."""

    broker: RunningBroker
    moto: Moto
    bucket: str
    folder: Path

    def token(self, scope: str = "artifacts.use") -> str:
        words = ("--agent", "coder", "--scope", scope, "--ttl", "20m")
        return self.broker.home.run("token", *words).strip()

    def options(self, service: str, token: str) -> dict[str, Any]:
        """Return what a client is made with: the gateway, and keys that open nothing."""
        return {
            "endpoint_url": f"{self.broker.home.gateway_url}/{service}/",
            "region_name": REGION,
            "aws_access_key_id": "none",
            "aws_secret_access_key": "none",
            "aws_session_token": token,
        }

    def s3(self) -> S3Client:
        config = Config(retries={"total_max_attempts": 1}, proxies={})
        return boto3.client("s3", config=config, **self.options("s3", self.token()))


@pytest.fixture(scope="module")
def site(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("aws-proxy")
    bucket = moto.bucket(**{"in/report": "all is well", "secret": "not for agents"})
    own = moto.user("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
    may = {"Effect": "Allow", "Action": ["s3:*", "sqs:*"], "Resource": "*"}
    home = BrokerHome.create(folder / "home", log_level="debug")
    home.run("secret", "put", "aws-id", stdin=own.key.id)
    home.run("secret", "put", "aws-key", stdin=own.key.secret)
    home.policy(policy(moto.role(own.arn, may), moto.url, bucket))
    home.run("agents", "enroll", "coder")
    with running_broker(home) as running:
        yield Site(running, moto, bucket, folder)


def refusal(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str | None]:
    answer = caught.value.response["ResponseMetadata"]
    return answer["HTTPStatusCode"], answer["HTTPHeaders"].get("broker-error")


def test_boto3_works_through_the_gateway_and_holds_no_session(site: Site) -> None:
    s3 = site.s3()
    answer = s3.get_object(Bucket=site.bucket, Key="in/report")
    assert answer["Body"].read() == b"all is well"
    s3.put_object(Bucket=site.bucket, Key="out/new file+1", Body=b"new", ContentType="text/plain")
    kept = site.moto.s3(site.moto.admin).get_object(Bucket=site.bucket, Key="out/new file+1")
    assert (kept["Body"].read(), kept["ContentType"]) == (b"new", "text/plain")
    listed = s3.list_objects_v2(Bucket=site.bucket, Prefix="in/")
    assert [one["Key"] for one in listed["Contents"]] == ["in/report"]


def test_what_no_rule_allows_is_refused_before_anything_is_signed(site: Site) -> None:
    s3 = site.s3()
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=site.bucket, Key="secret")
    assert refusal(caught) == (403, "policy_denied")
    with pytest.raises(ClientError) as caught:
        s3.delete_object(Bucket=site.bucket, Key="in/report")
    assert refusal(caught) == (403, "policy_denied")


def test_a_copy_from_a_place_that_no_rule_has_judged_is_refused(site: Site) -> None:
    with pytest.raises(ClientError) as caught:
        site.s3().copy_object(
            Bucket=site.bucket, Key="out/copy", CopySource=f"{site.bucket}/secret"
        )
    assert refusal(caught) == (400, "unsignable")


@pytest.mark.parametrize("token", ["none", ""])
def test_without_a_task_token_nothing_is_signed(site: Site, token: str) -> None:
    s3 = boto3.client("s3", **site.options("s3", token))
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=site.bucket, Key="in/report")
    assert refusal(caught)[0] == 401


def test_large_objects_go_in_parts_both_ways(site: Site, tmp_path: Path) -> None:
    s3, path = site.s3(), tmp_path / "large"
    content = os.urandom(20 << 20)
    path.write_bytes(content)
    s3.upload_file(str(path), site.bucket, "in/large")
    s3.download_file(site.bucket, "in/large", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == content
    part = s3.get_object(Bucket=site.bucket, Key="in/large", Range="bytes=5-9")
    assert part["Body"].read() == content[5:10]


def test_a_service_that_wants_the_digest_of_its_bodies_has_it(site: Site) -> None:
    sqs = boto3.client("sqs", **site.options("queues", site.token("queues.use")))
    queue = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="build")
    told = sqs.receive_message(QueueUrl=queue)
    assert [one["Body"] for one in told["Messages"]] == ["build"]


def test_the_aws_command_line_works_through_the_gateway(component: Gate, site: Site) -> None:
    program = component.program("aws", "make setup")
    options = site.options("s3", site.token())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(site.folder),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_SESSION_TOKEN": options["aws_session_token"],
    }
    done = subprocess.run(
        [program, "s3", "cp", f"s3://{site.bucket}/in/report", "-"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("all is well", 0), done.stderr


def test_a_client_that_knows_no_signatures_needs_none(site: Site) -> None:
    url = f"{site.broker.home.gateway_url}/s3/{site.bucket}/out/plain"
    headers = {"Authorization": f"Bearer {site.token()}"}
    for body in (b"short", b"x" * 100_000):
        assert httpx.put(url, content=body, headers=headers).status_code == 200
        # In chunks, whose size nobody knows beforehand.
        assert httpx.put(url, content=iter([body]), headers=headers).status_code == 200
        kept = site.moto.s3(site.moto.admin).get_object(Bucket=site.bucket, Key="out/plain")
        assert kept["Body"].read() == body


def test_a_digest_that_is_not_the_bodys_is_found_out_by_s3_or_kept_as_it_is(site: Site) -> None:
    url = f"{site.broker.home.gateway_url}/s3/{site.bucket}/out/digest"
    digest = hashlib.sha256(b"content").hexdigest()
    headers = {"Authorization": f"Bearer {site.token()}", "X-Amz-Content-Sha256": digest}
    assert httpx.put(url, content=b"content", headers=headers).status_code == 200


def test_neither_records_nor_logs_hold_a_part_of_a_session(site: Site) -> None:
    site.s3().get_object(Bucket=site.bucket, Key="in/report")
    lease = json.loads(site.broker.home.run("leases", "--json"))[0]
    assert (lease["provider"], lease["state"]) == ("aws_sts", "used")
    told = site.broker.home.run("logs", "--json") + (site.folder / "output.log").read_text()
    assert f"/{site.bucket}/in/report" in told
    for secret in ("aws4_request", "X-Amz-Signature", "SessionToken", "SecretAccessKey"):
        assert secret not in told
