"""Names under which an agent could bring a credential of its own, beside the one that is injected.

A service that takes either would then do what was allowed for somebody else: what an agent was
talked into sending lands in the account of whoever talked to it. So these are never sent on.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = (
    rb"access|account|api|auth|bot|circle|consul|deploy|figma|gitlab|job|nomad|plex|private|security"
    rb"|server|session|subscription|vault"
)
_FIELD: Final = re.compile(
    rb"(?:\A|-)(?:api-?key|(?:%b)-?token)\Z|\A(?:x-)?(?:auth|authorization|token)\Z" % _TOKEN
)
_FIELDS: Final = frozenset(
    {b"x-auth-email", b"x-auth-key", b"x-auth-user-service-key"}  # Cloudflare
    | {b"dd-application-key", b"ocp-apim-subscription-key", b"x-functions-key", b"x-rapidapi-key"}
    | {b"x-goog-iam-authorization-token", b"x-jfrog-art-api", b"x-parse-master-key"}
)

_PARAMETERS: Final = frozenset(
    {b"access_token", b"accesstoken", b"api_key", b"api_token", b"apikey", b"auth_token"}
    | {b"authtoken", b"job_token", b"oauth_token", b"private_token", b"session_token"}
    | {b"subscription_key"}
)
_PARAMETERS_THERE: Final = {
    "googleapis.com": _PARAMETERS | {b"key"},
    "slack.com": _PARAMETERS | {b"token"},
}
"""Where names that elsewhere mean anything hold a credential."""


def key_parameters(host: str) -> frozenset[bytes]:
    """Return names of query parameters by which a key goes to this host, as `inject` has them."""
    for domain, names in _PARAMETERS_THERE.items():
        if host == domain or host.endswith(f".{domain}"):
            return names
    return _PARAMETERS


def is_key(name: bytes) -> bool:
    """Tell whether a field of this name (see `broker.twins.twin`) is known to hold a credential."""
    return name in _FIELDS or _FIELD.search(name) is not None
