"""Any API that speaks OAuth 2: client credentials, refresh tokens, JWT bearer (RFC 6749, 7523).

A token is got for each grant, with the scope's `oauth_scopes` and no others; it is renewed
before its end, ended with the grant where the API can do that, and never an agent's to keep
unless the scope says `delivery: credential`.
"""

from __future__ import annotations

from typing import Final

from providers.base import Plugin, upstream_of
from providers.bearer import token_slots
from providers.oauth2.config import OAuth2Scope, OAuth2Service, secret_references
from providers.oauth2.provider import build
from providers.tokens import LONGEST_LIFE

PLUGIN: Final = Plugin(
    kind="oauth2",
    service_model=OAuth2Service,
    scope_model=OAuth2Scope,
    deliveries=frozenset({"proxy", "credential"}),
    http_rules=True,
    build=build,
    upstream=upstream_of,
    token_slots=token_slots,
    secret_references=secret_references,
    least_lifetime=LONGEST_LIFE,
)
