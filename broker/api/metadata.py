"""The documents by which others learn who we are: RFC 8414, OpenID discovery, our keys.

OpenID discovery is there for those who verify our tokens by it (Vault's JWT login, clouds that
federate); nobody can log in with a browser here, and no endpoint says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
from starlette.responses import Response

from broker.token_request import GRANT_TYPES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    Answer = Callable[[Request], Awaitable[Response]]

_WELL_KNOWN: Final = "/.well-known"
_CACHEABLE: Final = {"Cache-Control": "public, max-age=300"}


def authorization_server(issuer: str) -> dict[str, Any]:
    """Return the metadata of RFC 8414, 2; `issuer` stands in it byte for byte.

    There is no authorization endpoint, so `response_types_supported` has no elements, and what
    has none is left out (RFC 8414, 3.2). Both endpoints for task tokens also take a task token as
    Bearer; for revocation, RFC 8414 has no word for that.
    """
    base = issuer.removesuffix("/")
    return {
        "issuer": issuer,
        "token_endpoint": f"{base}/token",
        "jwks_uri": f"{base}{_WELL_KNOWN}/jwks.json",
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
        "introspection_endpoint": f"{base}/introspect",
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt", "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": ["ES256"],
        "revocation_endpoint": f"{base}/revoke",
        "revocation_endpoint_auth_methods_supported": ["private_key_jwt"],
        "revocation_endpoint_auth_signing_alg_values_supported": ["ES256"],
    }


def openid_configuration(issuer: str) -> dict[str, Any]:
    """Return the same with what OpenID Connect Discovery 1.0, 3 requires of verifiable tokens."""
    return {
        **authorization_server(issuer),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


def documents(issuer: str, jwks: Callable[[], Mapping[str, Any]]) -> dict[str, Answer]:
    """Return what to answer at each well-known path.

    An issuer with a path is looked for in two places: the well-known part before the path
    (RFC 8414, 3.1) and after it (OpenID discovery, 4.1). Both answer for both documents.
    """
    path = urlsplit(issuer).path.rstrip("/")
    answers = {
        "oauth-authorization-server": _fixed(authorization_server(issuer)),
        "openid-configuration": _fixed(openid_configuration(issuer)),
        "jwks.json": _key_set(jwks),
    }
    return {
        place: answer
        for name, answer in answers.items()
        for place in (
            f"{_WELL_KNOWN}/{name}",
            f"{_WELL_KNOWN}/{name}{path}",
            f"{path}{_WELL_KNOWN}/{name}",
        )
    }


def _fixed(document: Mapping[str, Any]) -> Answer:
    body = orjson.dumps(document)

    async def answer(_request: Request) -> Response:
        return Response(body, headers=_CACHEABLE, media_type="application/json")

    return answer


def _key_set(jwks: Callable[[], Mapping[str, Any]]) -> Answer:
    async def answer(_request: Request) -> Response:
        body = orjson.dumps(jwks())
        return Response(body, headers=_CACHEABLE, media_type="application/jwk-set+json")

    return answer
