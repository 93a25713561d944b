"""Tokens of a Google Cloud service account: impersonated for one grant, and downscoped to it.

The broker proves itself with a key or through a workload identity pool, makes a token of the
service that ends with the grant, and cuts it to the scope's Credential Access Boundary.
"""

from __future__ import annotations

from typing import Final

from providers.base import Plugin, upstream_of
from providers.bearer import token_slots
from providers.gcp.config import GcpScope, GcpService, secret_references
from providers.gcp.provider import build

PLUGIN: Final = Plugin(
    kind="gcp",
    service_model=GcpService,
    scope_model=GcpScope,
    deliveries=frozenset({"proxy", "credential"}),
    http_rules=True,
    build=build,
    upstream=upstream_of,
    token_slots=token_slots,
    secret_references=secret_references,
)
