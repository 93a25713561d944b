"""AWS sessions cut to one grant: AssumeRole with a session policy, and the grant's name on it.

    services:
      aws-prod:
        provider: aws_sts
        role_arn: arn:aws:iam::123456789012:role/agent-task
        region: eu-west-1
    scopes:
      artifacts.read:
        service: aws-prod
        delivery: [credential]
        session_policy:
          - {effect: Allow, actions: ["s3:GetObject"], resources: ["arn:aws:s3:::art/{agent}/*"]}
        session_tags: {agent: "{agent}"}

With `api: {service: s3}` in the service, and `allow` rules in the scope instead of a delivery, no
session is handed out: the gateway signs the agent's requests with it.

A session may do what its role and its session policy both allow. It carries the grant's id as
source identity, and agent and task as its name; CloudTrail shows both with each of its calls.

STS can neither revoke a session nor make one of less than 900 seconds. A grant with less left
gets a session of 900 seconds whose policy denies everything from the moment the grant ends.
Of a grant that is revoked the session lives on until it expires, at the latest when the grant
would have ended; a role policy that denies `aws:SourceIdentity` ends it sooner (`deny`).
"""

from __future__ import annotations

from typing import Final

from providers.aws_sts.deny import RoleDenial
from providers.aws_sts.fields import LONGEST, SHORTEST, AwsStsScope, AwsStsService, Keys
from providers.aws_sts.session import AwsSts
from providers.base import Plugin, TokenSlot

PLUGIN: Final = Plugin(
    kind="aws_sts",
    service_model=AwsStsService,
    scope_model=AwsStsScope,
    deliveries=frozenset({"credential", "proxy"}),
    http_rules=True,
    build=AwsSts,
    upstream=lambda config: (
        config.api.upstream(config.region, config.ca_file) if config.api else None
    ),
    # AWS's SDKs sign with keys of their own, and send a session token as it stands.
    token_slots=lambda _: (
        TokenSlot("bearer", b"authorization", b"Bearer "),
        TokenSlot("header", b"x-amz-security-token"),
    ),
    secret_references=lambda config: (
        (config.credentials.access_key_id, config.credentials.secret_access_key)
        if isinstance(config.credentials, Keys)
        else ()
    ),
    max_lifetime=LONGEST,
    least_lifetime=SHORTEST,
    upstream_field="api",
    denial=RoleDenial,
)
