"""Session policies as a server enforces them, and signatures as a server checks them.

radosgw knows sessions of its own STS, and what their policies allow. What the gateway's rules
would say is left wide open here, so that what is denied is denied by the server alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from providers.aws_sts import PLUGIN
from providers.aws_sts.api import Api
from providers.aws_sts.session import PARTS
from providers.aws_sts.signer import SessionSigner
from providers.aws_sts.sigv4 import Clock, Keys
from providers.base import CredentialRequest, Dependencies, Mints, Secret
from providers.signing import Outgoing
from tests.components.moto import AccessKey
from tests.components.radosgw import REGION
from tests.fakes.iam import allows
from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from tests.components.radosgw import Radosgw

DELIVERED: Final = "delivered.read"
PROXIED: Final = "proxied.use"
PRESIGNED: Final = "presigned.use"
DENIED: Final = (403, "AccessDenied", None)


def policy(ceph: Radosgw, bucket: str) -> str:
    """Return a policy whose agent may use what is under `coder/` of a bucket."""
    here = {"base_url": ceph.url, "insecure_http": True, "allow_private": True}

    def service(**api: str) -> dict[str, Any]:
        own = {"access_key_id": "embedded:ceph-id", "secret_access_key": "embedded:ceph-key"}
        return {
            "provider": "aws_sts",
            "role_arn": ceph.role,
            "region": REGION,
            "endpoint_url": ceph.url,
            "insecure_http": True,
            "credentials": {"type": "keys", **own},
            "api": {"service": "s3", **here, **api},
        }

    def rights(*actions: str) -> dict[str, Any]:
        resources = [f"arn:aws:s3:::{bucket}/{{agent}}/*"]
        return {"session_policy": [{"effect": "Allow", "actions": actions, "resources": resources}]}

    everything = {"allow": ["* /**"], **rights("s3:GetObject", "s3:PutObject")}
    scopes = {
        DELIVERED: {"service": "ceph", "delivery": ["credential"], **rights("s3:GetObject")},
        PROXIED: {"service": "ceph", **everything},
        PRESIGNED: {"service": "presigned", **everything},
    }
    return json.dumps(
        {
            "services": {"ceph": service(), "presigned": service(signature="query")},
            "scopes": scopes,
            "agents": {
                "coder": {
                    "trust": [{"source": "local"}],
                    "scopes": list(scopes),
                    "max_ttl": "1h",
                }
            },
        },
        indent=1,
    )


@dataclass(frozen=True)
class Site:
    """A broker whose own keys may assume a role at a radosgw."""

    broker: RunningBroker
    ceph: Radosgw
    bucket: str

    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def token(self, scope: str, ttl: str = "30m") -> str:
        """Return a task token, the same for all that want one of its kind."""
        if (scope, ttl) not in self.tokens:
            words = ("--agent", "coder", "--scope", scope, "--ttl", ttl)
            self.tokens[scope, ttl] = self.broker.home.run("token", *words).strip()
        return self.tokens[scope, ttl]

    def session(self, ttl: str = "30m") -> AccessKey:
        """Return a session that was minted for a grant of this length."""
        answer = self.broker.http.post(
            f"{self.broker.home.control_url}/credentials",
            json={"scope": DELIVERED},
            headers={"Authorization": f"Bearer {self.token(DELIVERED, ttl)}"},
        )
        assert answer.status_code == HTTPStatus.OK, answer.text
        told = answer.json()["credential"]
        return AccessKey(told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"])

    def gateway(self, service: str = "ceph", scope: str = PROXIED) -> S3Client:
        """Return a client of the gateway, with keys that open nothing."""
        return boto3.client(
            "s3",
            endpoint_url=f"{self.broker.home.gateway_url}/{service}/",
            region_name=REGION,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            aws_session_token=self.token(scope),
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def kept(self, key: str) -> bytes:
        """Return what its owner finds under a key."""
        found = self.ceph.s3(self.ceph.owner).get_object(Bucket=self.bucket, Key=key)
        return found["Body"].read()


@pytest.fixture(scope="module")
def site(radosgw: Radosgw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("radosgw-broker")
    bucket = radosgw.bucket(**{"coder/report": "all is well", "other/report": "not for coders"})
    home = BrokerHome.create(folder / "home")
    home.run("secret", "put", "ceph-id", stdin=radosgw.owner.id)
    home.run("secret", "put", "ceph-key", stdin=radosgw.owner.secret)
    home.policy(policy(radosgw, bucket))
    home.run("agents", "enroll", "coder")
    with running_broker(home) as running:
        yield Site(running, radosgw, bucket)


def denial(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str, str | None]:
    """Return status and code of a refusal, and the broker's word if it is the broker's."""
    answer, error = caught.value.response["ResponseMetadata"], caught.value.response["Error"]
    return answer["HTTPStatusCode"], error["Code"], answer["HTTPHeaders"].get("broker-error")


def test_a_delivered_session_does_what_its_scope_says_and_the_server_denies_the_rest(
    site: Site,
) -> None:
    s3 = site.ceph.s3(site.session())
    assert s3.get_object(Bucket=site.bucket, Key="coder/report")["Body"].read() == b"all is well"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=site.bucket, Key="other/report")
    assert denial(caught) == DENIED
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=site.bucket, Key="coder/report", Body=b"changed")
    assert denial(caught) == DENIED
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket=site.bucket)
    assert denial(caught) == DENIED


def test_a_session_ends_with_its_grant_though_sts_lets_it_live_longer(site: Site) -> None:
    key = site.session("5s")
    s3, ends = site.ceph.s3(key), time.monotonic() + 6
    while time.monotonic() < ends:
        time.sleep(0.5)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=site.bucket, Key="coder/report")
    assert denial(caught) == DENIED


def test_through_the_gateway_the_server_denies_what_is_outside_of_the_session_policy(
    site: Site,
) -> None:
    s3 = site.gateway()
    assert s3.get_object(Bucket=site.bucket, Key="coder/report")["Body"].read() == b"all is well"
    s3.put_object(Bucket=site.bucket, Key="coder/new", Body=b"new")
    assert site.kept("coder/new") == b"new"
    for call in (
        lambda: s3.get_object(Bucket=site.bucket, Key="other/report"),
        lambda: s3.put_object(Bucket=site.bucket, Key="other/new", Body=b"new"),
        lambda: s3.delete_object(Bucket=site.bucket, Key="coder/report"),
        lambda: s3.list_objects_v2(Bucket=site.bucket),
        s3.list_buckets,
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert denial(caught)[0::2] == (403, None)  # not the broker's refusal
    assert site.kept("coder/report") == b"all is well"


def test_a_signature_in_the_query_is_taken_too(site: Site) -> None:
    s3 = site.gateway("presigned", PRESIGNED)
    assert s3.get_object(Bucket=site.bucket, Key="coder/report")["Body"].read() == b"all is well"
    part = s3.get_object(Bucket=site.bucket, Key="coder/report", Range="bytes=4-5")
    assert part["Body"].read() == b"is"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=site.bucket, Key="other/report")
    assert denial(caught)[0::2] == (403, None)


@pytest.fixture(scope="module")
def s3(site: Site) -> S3Client:
    """A client of the gateway."""
    return site.gateway()


SAFE: Final = st.text(
    st.characters(codec="utf-8", categories=("L", "N"), max_codepoint=0x2FF)
    | st.sampled_from(" !$&'()*+,=:@-_~\"<>[]^`{|}"),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25)
@given(name=SAFE, body=st.binary(max_size=40))
def test_any_key_that_passes_is_the_same_for_agent_and_owner(
    *, site: Site, s3: S3Client, name: str, body: bytes
) -> None:
    key = f"coder/{name}"
    try:
        s3.put_object(Bucket=site.bucket, Key=key, Body=body)
    except ClientError as error:
        status, word = (
            error.response["ResponseMetadata"]["HTTPStatusCode"],
            error.response["ResponseMetadata"]["HTTPHeaders"].get("broker-error"),
        )
        assert (status, word) == (400, "path_not_canonical")
    else:
        assert site.kept(key) == body
        assert s3.get_object(Bucket=site.bucket, Key=key)["Body"].read() == body


def _put(site: Site, key: str, body: bytes, **fields: str) -> httpx.Response:
    token = site.token(PROXIED)
    url = f"{site.broker.home.gateway_url}/ceph/{site.bucket}/coder/{key}"
    headers = {"X-Amz-Security-Token": token, **fields}
    return site.broker.http.put(url, content=body, headers=headers)


def test_chunks_that_somebody_else_has_signed_are_taken_as_they_are_signed_anew(
    site: Site,
) -> None:
    content = bytes(range(256)) * 1024
    mark = b";chunk-signature=" + b"0" * 64
    parts = [content[place : place + 50_000] for place in range(0, len(content), 50_000)]
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(part), mark, part) for part in (*parts, b""))
    answer = _put(
        site,
        "chunks",
        body,
        **{
            "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "X-Amz-Decoded-Content-Length": str(len(content)),
            "Content-Encoding": "aws-chunked",
        },
    )
    assert answer.status_code == HTTPStatus.OK, answer.text
    assert site.kept("coder/chunks") == content


def test_a_digest_that_is_not_the_bodys_is_refused_by_the_server(site: Site) -> None:
    digest = hashlib.sha256(b"this").hexdigest()
    answer = _put(site, "digest", b"that", **{"X-Amz-Content-Sha256": digest})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "broker-error" not in answer.headers
    assert "XAmzContentSHA256Mismatch" in answer.text
    assert _put(site, "digest", b"this", **{"X-Amz-Content-Sha256": digest}).is_success


def test_a_body_of_whatever_kind_is_taken(site: Site) -> None:
    assert _put(site, "plain", b"plain").is_success
    assert _put(site, "plain", b"plain", **{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"}).is_success
    assert _put(site, "empty", b"").is_success
    assert (site.kept("coder/plain"), site.kept("coder/empty")) == (b"plain", b"")


@pytest.mark.parametrize(("ahead", "taken"), [(0.0, True), (3600.0, False), (-3600.0, False)])
def test_a_clock_that_is_off_is_told_by_the_server(
    site: Site, ahead: float, *, taken: bool
) -> None:
    key = site.session()
    keys = Keys(key.id.encode(), Secret(key.secret.encode()), (key.token or "").encode())
    api = Api(service="s3", base_url=site.ceph.url, insecure_http=True)
    signer = SessionSigner(keys, api, REGION, Clock(lambda: time.time() + ahead), copies=False)
    host = site.ceph.url.removeprefix("http://").encode()
    path = f"/{site.bucket}/coder/report"
    made = signer.sign(Outgoing(b"GET", path.encode(), None, host))
    headers = [(name, value) for name, value in made.headers]
    answer = httpx.get(f"{site.ceph.url}{path}", headers=headers, trust_env=False)
    assert answer.is_success is taken
    assert ("RequestTimeTooSkewed" in answer.text) is not taken


STATEMENTS: Final = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "actions": st.lists(
            st.sampled_from(["s3:GetObject", "s3:Get*", "s3:PutObject", "s3:ListBucket", "s3:*"]),
            min_size=1,
            max_size=2,
        ),
        "resources": st.lists(
            st.sampled_from(["", "/*", "/coder/*", "/other/*", "/*/report", "/coder/repor?"]),
            min_size=1,
            max_size=2,
        ),
    }
)


class Stored:
    """The owner's keys, as a secret backend holds them."""

    def __init__(self, owner: AccessKey) -> None:
        self._values = {"embedded:id": owner.id, "embedded:key": owner.secret}

    async def read(self, reference: str) -> Secret:
        return Secret(self._values[reference].encode())


async def _session(ceph: Radosgw, scope: dict[str, Any]) -> tuple[AccessKey, str]:
    """Return a session minted for a scope, and the policy that it was minted with."""
    service = {
        "role_arn": ceph.role,
        "region": REGION,
        "endpoint_url": ceph.url,
        "insecure_http": True,
        "credentials": {
            "type": "keys",
            "access_key_id": "embedded:id",
            "secret_access_key": "embedded:key",
        },
    }
    constraints = PLUGIN.scope_model.model_validate(scope)
    asked = CredentialRequest("ceph", "coder", "grant-1", "any", None, 900, constraints)
    dependencies = Dependencies(Stored(ceph.owner), lambda: None, time.time)
    provider = PLUGIN.build(PLUGIN.service_model.model_validate(service), dependencies)
    assert isinstance(provider, Mints)
    fields = (await provider.mint(asked)).fields
    parts = (fields[name].reveal().decode() for name in PARTS)
    return AccessKey(*parts), constraints.policy(None)


@settings(max_examples=20)
@given(statements=st.lists(STATEMENTS, min_size=1, max_size=3))
async def test_no_session_of_any_policy_may_do_more_than_its_scope_says(
    *, site: Site, statements: list[dict[str, Any]]
) -> None:
    place = f"arn:aws:s3:::{site.bucket}"
    written = [
        one | {"resources": [place + resource for resource in one["resources"]]}
        for one in statements
    ]
    assume(any(one["effect"] == "Allow" for one in written))
    key, sent = await _session(site.ceph, {"session_policy": written})
    s3 = site.ceph.s3(key)
    for name in ("coder/report", "other/report"):
        told = _status(lambda: s3.head_object(Bucket=site.bucket, Key=name))  # noqa: B023
        assert (told == HTTPStatus.OK) == allows(sent, "s3:GetObject", f"{place}/{name}", 0)
        put = _status(lambda: s3.put_object(Bucket=site.bucket, Key=f"{name}.new"))  # noqa: B023
        assert (put == HTTPStatus.OK) == allows(sent, "s3:PutObject", f"{place}/{name}.new", 0)
    listed = _status(lambda: s3.list_objects_v2(Bucket=site.bucket))
    assert (listed == HTTPStatus.OK) <= allows(sent, "s3:ListBucket", place, 0)


def _status(call: Callable[[], Any]) -> int:
    try:
        answer = call()
    except ClientError as error:
        answer = error.response
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    assert status in {HTTPStatus.OK, HTTPStatus.FORBIDDEN}
    return status
