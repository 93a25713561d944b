"""Make tokens of a service account that end with the grant, downscoped to the scope's boundary."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from providers.base import Minted, ProviderError, Secret
from providers.bearer import ACCESS_TOKEN, PresentsBearer
from providers.gcp.config import Federated
from providers.tokens import JWT_BEARER, Endpoints, assertion, read_proof, read_token, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import CredentialRequest, Dependencies
    from providers.gcp.config import GcpScope, GcpService, ServiceAccountKey

LONGEST: Final = 3600
"""Seconds that a token of a service account lives at most, if its organisation allows no more."""

_PLATFORM: Final = "https://www.googleapis.com/auth/cloud-platform"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_EARLY: Final = 120.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class _Own:
    """The broker's own access token; `proof` is what it was got with."""

    token: Secret
    proof: Secret
    until: float


class Gcp(PresentsBearer):
    """Make tokens (`Mints`), and say how they go into requests (`Presents`).

    Google knows no revocation of them; each is made to end with its grant.
    """

    def __init__(self, config: GcpService, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._secrets: Final = dependencies.secrets
        self._clock: Final = dependencies.clock
        self._own: _Own | None = None
        self._endpoints: Final = Endpoints(
            dependencies.http,
            ca_file=config.ca_file,
            private=config.allow_private,
            insecure=config.insecure_http,
        )

    async def mint(self, request: CredentialRequest) -> Minted:
        """Make a token of the service account, and cut it to the scope's boundary."""
        scope: GcpScope = request.constraints
        token, expires_at = await self._impersonate(request)
        if scope.access_boundary is not None:
            token, expires_at = await self._downscope(token, expires_at, _boundary(scope))
        return Minted({ACCESS_TOKEN: token}, expires_at)

    async def _impersonate(self, request: CredentialRequest) -> tuple[Secret, float]:
        config = self._config
        url = (
            f"{config.iam_url}/v1/projects/-/serviceAccounts/"
            f"{config.service_account}:generateAccessToken"
        )
        body = {
            "scope": list(request.constraints.oauth_scopes),
            "lifetime": f"{min(request.lifetime, LONGEST)}s",
        }
        answer = await self._endpoints.json(url, body, await self._own_token())
        if not answer.good:
            self._own = None  # rights may have changed by now
            error = refused(url, answer)
            if answer.status in {403, 404}:
                raise ProviderError(
                    f"{error}; see that {config.service_account} exists and the broker has "
                    "roles/iam.serviceAccountTokenCreator on it",
                    code=error.code,
                )
            raise error
        token, expires_at = answer.document.get("accessToken"), answer.document.get("expireTime")
        moment = _epoch(expires_at)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or moment is None:
            raise ProviderError(f"{url} answered without a token and its end", untouched=False)
        return Secret(token.encode()), moment

    async def _downscope(
        self, token: Secret, expires_at: float, boundary: Mapping[str, Any]
    ) -> tuple[Secret, float]:
        url = f"{self._config.sts_url}/v1/token"
        answer = await self._endpoints.form(
            url,
            {
                "grant_type": _EXCHANGE,
                "requested_token_type": _ACCESS,
                "subject_token_type": _ACCESS,
                "subject_token": token,
                "options": json.dumps({"accessBoundary": boundary}, separators=(",", ":")),
            },
        )
        if "expires_in" not in answer.document:  # then it ends with the token that it was cut from
            left = max(1, int(expires_at - self._clock()))
            answer = type(answer)(answer.status, {**answer.document, "expires_in": left})
        cut = read_token(url, answer)
        if cut.access_token == token:
            raise ProviderError(f"{url} gave back the token as it was", untouched=False)
        return cut.access_token, min(expires_at, self._clock() + cut.expires_in)

    async def _own_token(self) -> Secret:
        """Return the broker's own token, got anew before its end and when its proof changes."""
        credentials = self._config.credentials
        if isinstance(credentials, Federated):
            proof = await read_proof(credentials.token_file)
        else:
            proof = await self._secrets.read(credentials.key)
        own = self._own
        if own is None or own.proof != proof or own.until <= self._clock():
            if isinstance(credentials, Federated):
                token = await self._federate(credentials, proof)
            else:
                token = await self._show_key(credentials, proof)
            own = self._own = _Own(token[0], proof, self._clock() + max(0.0, token[1] - _EARLY))
        return own.token

    async def _federate(self, federated: Federated, proof: Secret) -> tuple[Secret, float]:
        url = f"{self._config.sts_url}/v1/token"
        answer = await self._endpoints.form(
            url,
            {
                "grant_type": _EXCHANGE,
                "audience": federated.audience,
                "scope": _PLATFORM,
                "requested_token_type": _ACCESS,
                "subject_token_type": _JWT,
                "subject_token": proof,
            },
        )
        token = read_token(url, answer)
        return token.access_token, token.expires_in

    async def _show_key(
        self, credentials: ServiceAccountKey, proof: Secret
    ) -> tuple[Secret, float]:
        url, now = self._config.token_url, int(self._clock())
        email, key_id, pem = _key(credentials.key, proof)
        claims = {"iss": email, "scope": _PLATFORM, "aud": url, "iat": now, "exp": now + 300}
        signed = await assertion(
            pem, claims, algorithm="RS256", reference=credentials.key, headers={"kid": key_id}
        )
        answer = await self._endpoints.form(url, {"grant_type": JWT_BEARER, "assertion": signed})
        token = read_token(url, answer)
        return token.access_token, token.expires_in


def build(config: Any, dependencies: Dependencies) -> Gcp:
    """Return the provider of a service."""
    return Gcp(config, dependencies)


def _boundary(scope: GcpScope) -> Mapping[str, Any]:
    rules = []
    for rule in scope.access_boundary or ():
        told: dict[str, Any] = {
            "availableResource": rule.resource,
            "availablePermissions": list(rule.permissions),
        }
        if rule.condition is not None:
            told["availabilityCondition"] = {"expression": rule.condition}
        rules.append(told)
    if not rules:
        raise ProviderError("no token is cut by a boundary without rules")
    return {"accessBoundaryRules": rules}


def _key(reference: str, content: Secret) -> tuple[str, str, Secret]:
    try:
        document = json.loads(content.reveal())
        email, key_id, pem = (
            document[name] for name in ("client_email", "private_key_id", "private_key")
        )
        return str(email), str(key_id), Secret(pem.encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ProviderError(
            f"the value of {reference} is no service account key; store the JSON file as it is"
        ) from None


def _epoch(told: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return moment.timestamp() if moment.tzinfo else None
