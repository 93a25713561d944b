"""Policies for tests: a small one that is right, a provider with constraints, and shortcuts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from broker.errors import PolicyError
from broker.model import Identity
from broker.policy.loader import load_policy
from broker.policy.source import Document
from providers.base import Plugin, Templated, Upstream
from providers.http_api import PLUGIN as HTTP_API

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.policy.engine import Policy

ISSUER = "https://token.actions.githubusercontent.com"

SMALL = f"""\
identity_sources:
  actions:
    type: oidc
    issuer: {ISSUER}
    audiences: [https://broker.example.com]
  laptop: {{type: local}}
services:
  stripe:
    provider: http_api
    base_url: https://api.stripe.com
    credential: {{type: bearer, secret: "vault:kv/stripe#key"}}
scopes:
  stripe.read:
    service: stripe
    allow: ["GET /v1/**"]
  stripe.refund:
    service: stripe
    allow: ["GET /v1/charges/*", "POST /v1/refunds"]
    deny: ["* /v1/refunds/*/cancel"]
    max_ttl: 10m
    reason: required
    risk: high
agents:
  release-bot:
    trust:
      - source: actions
        claims: {{repository_id: "123456", ref: refs/heads/main}}
    scopes: [stripe.read, stripe.refund]
    max_ttl: 1h
  coder:
    trust:
      - source: laptop
    scopes: [stripe.read]
"""


class Statement(BaseModel):
    """A part of the fake cloud's constraints that has texts with templates deeper down."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effect: Literal["allow"] = "allow"
    resources: tuple[Annotated[str, Templated()], ...]


class CloudService(BaseModel):
    """What a service of the fake cloud says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Annotated[str, Field(pattern=r"^[a-z]+-[0-9]+$")]
    key: str


class CloudScope(BaseModel):
    """What a scope of the fake cloud says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repositories: Annotated[
        tuple[Annotated[str, Templated("A-Za-z0-9._/-")], ...], Field(min_length=1)
    ] = ("none",)
    project: Annotated[str, Templated("0-9"), Field(pattern=r"^[0-9]{1,6}$")] | None = None
    tags: dict[str, Annotated[str, Templated()]] = {}
    policy: tuple[Statement, ...] = ()
    comment: str = ""


def _unused(*_: Any) -> Any:
    raise AssertionError("policy never builds a provider")


CLOUD = Plugin(
    kind="cloud",
    service_model=CloudService,
    scope_model=CloudScope,
    deliveries=frozenset({"credential", "proxy"}),
    http_rules=False,
    build=_unused,
    upstream=lambda _: None,
    token_slots=lambda _: (),
    secret_references=lambda config: (config.key,),
    max_lifetime=600,
)
FORGE: Final = replace(
    CLOUD,
    kind="forge",
    http_rules=True,
    upstream=lambda _: Upstream("https", "forge.example", 443),
)
"""Another, which the gateway can be asked to call as well."""

PLUGINS: Mapping[str, Plugin] = {"cloud": CLOUD, "forge": FORGE, "http_api": HTTP_API}

CLOUD_SCOPE = """\
services:
  cloud: {provider: cloud, region: eu-1, key: "vault:kv/cloud#key"}
scopes:
  cloud.use:
    service: cloud
    delivery: [credential]
"""


def policy(*texts: str) -> Policy:
    """Return the policy that documents `0.yaml`, `1.yaml`, ... of these texts make."""
    return load_policy(_documents(texts), plugins=PLUGINS)


def problems(*texts: str) -> list[str]:
    """Return what is wrong with the documents, which must not load."""
    with pytest.raises(PolicyError) as refusal:
        load_policy(_documents(texts), plugins=PLUGINS)
    return [str(problem) for problem in refusal.value.problems]


def warnings(*texts: str) -> list[str]:
    """Return what is advised against in the documents, which must load."""
    return [str(problem) for problem in policy(*texts).warnings]


def _documents(texts: tuple[str, ...]) -> list[Document]:
    return [Document(f"{index}.yaml", text) for index, text in enumerate(texts)]


def changed(old: str, new: str, text: str = SMALL) -> str:
    """Return `text` with its one `old` replaced by `new`."""
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def identity(
    claims: Mapping[str, Any] | None = None, *, source: str = "actions", subject: str = "job"
) -> Identity:
    """Return a verified identity; by default that of the small policy's release bot."""
    if claims is None:
        claims = {"repository_id": "123456", "ref": "refs/heads/main"}
    return Identity(
        source=source,
        issuer=ISSUER if source == "actions" else "local",
        subject=subject,
        claims=claims,
        token_id="jti-1",
        expires_at=2_000_000_000.0,
        replay="single_use",
    )
