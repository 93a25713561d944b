"""The lease bench with a policy that opens AWS sessions at some STS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from providers.aws_sts import PLUGIN

if TYPE_CHECKING:
    import pytest

    from tests.fakes.lease_bench import LeaseBench

POLICY: Final = """
identity_sources:
  laptop: {{type: local}}
services:
  aws:
    provider: aws_sts
    role_arn: arn:aws:iam::123456789012:role/agent-task
    region: eu-west-1
    endpoint_url: {url}
    insecure_http: true
scopes:
  s3.read:
    service: aws
    delivery: [credential]
    session_policy:
      - effect: Allow
        actions: ["s3:GetObject"]
        resources: ["arn:aws:s3:::art/{{agent}}/{{claims.branch}}/*"]
    session_tags: {{repository: "{{claims.repository}}"}}
agents:
  coder:
    trust: [{{source: laptop, claims: {{sub: coder}}}}]
    scopes: [s3.read]
    max_ttl: 1h
"""

EXPIRATION: Final = "2025-06-15T15:21:40Z"
"""When the bench's clock says that 15 minutes are over."""


def use_aws(bench: LeaseBench, url: str, patch: pytest.MonkeyPatch) -> None:
    """Have the bench mint AWS sessions at `url`, with made-up credentials of its own."""
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "sk-of-the-broker")
    patch.delenv("AWS_SESSION_TOKEN", raising=False)
    bench.plugins["aws_sts"] = PLUGIN
    bench.policy = bench.load(POLICY.format(url=url))
