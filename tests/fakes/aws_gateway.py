"""A gateway that signs with an AWS session, before servers that check what was signed.

The check is AWS's own SDK's work: it signs what has arrived anew, and the signatures must agree.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from providers.aws_sts import PLUGIN
from providers.base import CredentialRequest, Dependencies, Injection, Minted, Secret
from tests.fakes.gateway import AGENT, gateway_bench
from tests.fakes.upstream import recording_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.gateway.limits import GatewayLimits
    from broker.model import Grant, Service
    from tests.components.tls import TestAuthority
    from tests.fakes.gateway import GatewayBench
    from tests.fakes.upstream import Received, Upstream
    from tests.fakes.wire import Response

KEY_ID: Final = "ASIAMINTED"
SECRET: Final = "minted-secret-canary-4af1"
TOKEN: Final = "minted-session-token-canary-77b2=="
MINTED: Final = Minted(
    {
        "AccessKeyId": Secret(KEY_ID.encode()),
        "SecretAccessKey": Secret(SECRET.encode()),
        "SessionToken": Secret(TOKEN.encode()),
    },
    4e9,
)
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request, SignedHeaders=(?P<names>[^,]+), "
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


def policy_text(plain: int, secure: int, ca_file: Path) -> str:
    """A policy of services that reach both upstreams, as S3 and as another API."""
    role = "role_arn: arn:aws:iam::123456789012:role/task, region: eu-west-1"
    http = f'base_url: "http://127.0.0.1:{plain}", insecure_http: true, allow_private: true'
    https = f'base_url: "https://localhost:{secure}", ca_file: {ca_file}, allow_private: true'
    services = {
        "s3": f"{{service: s3, {https}}}",
        "s3plain": f"{{service: s3, {http}}}",
        "s3query": f"{{service: s3, {https}, signature: query}}",
        "other": f"{{service: execute-api, {http}}}",
        "unscrubbed": f'{{service: s3, {http}, scrub: "off"}}',
    }
    lines = ["identity_sources: {laptop: {type: local}}", "services:"]
    lines += [
        f"  {name}: {{provider: aws_sts, {role}, api: {api}}}" for name, api in services.items()
    ]
    lines.append("scopes:")
    lines += [
        f'  {name}.all: {{service: {name}, allow: ["* /**"], deny: ["* /private/**"], '
        "full_role: true}"
        for name in services
    ]
    lines.append(
        '  other.publish: {service: other, allow: ["POST /"], full_role: true, '
        'body: {form: {Action: Publish, "*": {any: true}}}}'
    )
    scopes = ", ".join([*(f"{name}.all" for name in services), "other.publish"])
    trust = f"trust: [{{source: laptop, claims: {{sub: {AGENT}}}}}]"
    return "\n".join([*lines, "agents:", f"  {AGENT}: {{{trust}, scopes: [{scopes}]}}"])


@dataclass(repr=False)  # which Hypothesis would print
class AwsBench:
    """A gateway, and what is behind it: an upstream in the clear and one over TLS."""

    gateway: GatewayBench
    plain: Upstream
    secure: Upstream

    async def call(
        self, method: bytes, target: bytes, *lines: bytes, body: bytes = b""
    ) -> Response:
        """Send a request with the task token where AWS's SDKs put their session token."""
        scopes = self.gateway.store.current.scopes
        token = self.gateway.token(*(name for name in scopes if name.endswith(".all")))
        own = (b"X-Amz-Security-Token: " + token, *lines)
        return await self.gateway.call(method, target, *own, body=body, token=b"")

    @property
    def whole_bodies(self) -> int:
        """Return how many bytes are set aside for bodies that are read whole."""
        works = self.gateway.server._works
        return works.whole_bodies.size if works else 0

    @property
    def requests(self) -> list[Received]:
        """Return all that has reached an upstream."""
        return [*self.plain.requests, *self.secure.requests]

    @property
    def last(self) -> Received:
        """Return the one request that has reached an upstream."""
        (request,) = self.requests
        return request


@asynccontextmanager
async def aws_bench(
    directory: Path, authority: TestAuthority, limits: GatewayLimits | None = None
) -> AsyncIterator[AwsBench]:
    """Run a gateway whose provider has minted a session already."""
    context = authority.certificate("localhost").context()
    async with recording_upstream(context, "localhost") as secure:
        ports = (1, secure.port, authority.ca_file)
        async with gateway_bench(directory, text=policy_text(*ports), limits=limits) as bench:
            bench.load(policy_text(bench.upstream.port, secure.port, authority.ca_file))
            bench.authority.injection = _injection  # type: ignore[method-assign]
            yield AwsBench(bench, bench.upstream, secure)


async def _injection(policy: Any, service: Service, scope: str, grant: Grant) -> Injection:
    constraints = policy.constraints(scope, grant)
    asked = CredentialRequest(service.name, grant.agent, grant.jti, scope, None, 900, constraints)
    dependencies = Dependencies(None, lambda: None, _now)  # type: ignore[arg-type]
    provider: Any = PLUGIN.build(service.config, dependencies)
    injection: Injection = provider.present(MINTED, asked)
    return replace(injection, fresh_for=60.0)


def _now() -> float:
    return 1_750_000_000.0


@pytest.fixture
async def aws(tmp_path: Path, tls_authority: TestAuthority) -> AsyncIterator[AwsBench]:
    """A gateway that signs."""
    async with aws_bench(tmp_path / "audit", tls_authority) as bench:
        yield bench


def assert_signed(request: Received, *, s3: bool) -> None:
    """Check that AWS's SDK signs the request that has arrived as it was signed."""
    told = _AUTHORIZATION.fullmatch(dict(request.headers)[b"authorization"].decode())
    assert told is not None
    assert (told["key"], told["region"]) == (KEY_ID, "eu-west-1")
    names = told["names"].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    headers: dict[str, str] = {}
    for name in names:
        headers[name] = ",".join(value.decode() for value in request.all(name.encode()))
    assert headers["x-amz-security-token"] == TOKEN
    url = f"http://{headers['host']}{request.target.decode()}"
    again = AWSRequest(request.line.split(b" ")[0].decode(), url, headers, request.body)
    again.context["timestamp"] = headers["x-amz-date"]
    made = (botocore.auth.S3SigV4Auth if s3 else botocore.auth.SigV4Auth)(
        Credentials(KEY_ID, SECRET, TOKEN), told["service"], told["region"]
    )
    text = made.string_to_sign(again, made.canonical_request(again))
    assert made.signature(text, again) == told["signature"]
    digest = headers.get("x-amz-content-sha256", "")
    if re.fullmatch("[0-9a-f]{64}", digest):
        assert digest == hashlib.sha256(request.body).hexdigest()
