"""Where a service's requests go, and as what they are signed: by the policy alone."""

from __future__ import annotations

from typing import Any, Final

import botocore.session
import pytest
from pydantic import ValidationError

from providers.aws_sts.api import Api

REGION: Final = "eu-west-1"
CLIENTS: Final = {
    "api.ecr": "ecr",
    "bedrock-runtime": "bedrock-runtime",
    "cloudfront": "cloudfront",
    "dynamodb": "dynamodb",
    "ec2": "ec2",
    "email": "ses",
    "iam": "iam",
    "kms": "kms",
    "lambda": "lambda",
    "monitoring": "cloudwatch",
    "route53": "route53",
    "runtime.sagemaker": "sagemaker-runtime",
    "s3": "s3",
    "sns": "sns",
    "sqs": "sqs",
    "streams.dynamodb": "dynamodbstreams",
    "sts": "sts",
}
"""Names in hosts, with what AWS's SDK calls the same API."""


def api(**fields: Any) -> Api:
    return Api.model_validate({"service": "s3", **fields})


@pytest.mark.parametrize("port", ["0", "65536", "70000", "99999", "100000", "080"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        api(base_url=f"https://s3.example:{port}")
    assert api(base_url="https://s3.example:65535").upstream(REGION, None).port == 65_535


@pytest.mark.parametrize("region", [REGION, "us-gov-west-1", "cn-north-1"])
@pytest.mark.parametrize("service", ["s3", "dynamodb", "sqs", "sts", "ec2"])
def test_hosts_are_those_of_the_sdk(service: str, region: str) -> None:
    _same_as_the_sdk(service, region)


@pytest.mark.parametrize("service", CLIENTS)
def test_hosts_and_names_to_sign_are_those_of_the_sdk(service: str) -> None:
    _same_as_the_sdk(service, REGION)


def _same_as_the_sdk(service: str, region: str) -> None:
    client: Any = botocore.session.Session().create_client(
        CLIENTS[service],
        region,
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    made = api(service=service)
    upstream = made.upstream(region, None)
    assert f"{upstream.scheme}://{upstream.host}" == client.meta.endpoint_url
    signer = client._request_signer
    assert made.name_to_sign == signer.signing_name
    if made.region_to_sign(region) == region:
        assert signer._region_name in {region, "aws-global"}
    else:
        assert made.region_to_sign(region) == "us-east-1"


def test_a_host_of_ones_own_is_taken_as_it_is() -> None:
    made = api(
        base_url="https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com:8443",
        ca_file="/etc/ca.pem",
        allow_private=True,
        scrub="off",
    )
    upstream = made.upstream(REGION, "/other.pem")
    assert (upstream.host, upstream.port) == (
        "bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com",
        8443,
    )
    assert (upstream.ca_file, upstream.allow_private, upstream.scrub) == (
        "/etc/ca.pem",
        True,
        False,
    )
    assert api().upstream(REGION, "/other.pem").ca_file == "/other.pem"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"service": "evil.com/#"}, "service"),
        ({"service": "S3"}, "service"),
        ({"service": ""}, "service"),
        ({"service": "s3\n"}, "service"),
        ({"service": "a.b.c.d"}, "service"),
        ({"service": "s3express"}, "deliver sessions"),
        ({"signing_name": "s3express"}, "deliver sessions"),
        ({"signing_name": "a/b"}, "signing_name"),
        ({"signing_region": "evil.com/#"}, "signing_region"),
        ({"base_url": "https://s3.internal/path"}, "base_url"),
        ({"base_url": "https://user@s3.internal"}, "base_url"),
        ({"base_url": "http://s3.internal"}, "insecure_http: true"),
        ({"signature": "none"}, "signature"),
        ({"region": "eu-west-1"}, "region"),
    ],
)
def test_what_could_lead_elsewhere_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        api(**fields)


def test_names_to_sign_can_be_said() -> None:
    assert api(service="new-runtime", signing_name="new").name_to_sign == "new"
    assert api(signing_region="us-east-1").region_to_sign(REGION) == "us-east-1"
    assert not api(base_url="http://127.0.0.1:1", insecure_http=True).tls
