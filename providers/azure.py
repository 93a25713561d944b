"""Access tokens of Microsoft Entra ID for one application, by a federated credential or a key.

The application proves itself with a token that an issuer gave it (workload identity federation: a
cluster, a CI system), with a certificate, or with a secret; and gets a token for one resource:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow

Entra gives all application permissions that were granted for the resource, and lets nobody ask
for fewer: narrow them by an application for each kind of task, and each scope's rules.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from providers.base import Minted, Plugin, Secret, upstream_of
from providers.bearer import (
    ACCESS_TOKEN,
    BearerService,
    Model,
    PresentsBearer,
    SecretReference,
    Url,
    token_slots,
)
from providers.tokens import (
    ASSERTION_TYPE,
    LONGEST_LIFE,
    Endpoints,
    assertion,
    read_proof,
    read_token,
)

if TYPE_CHECKING:
    from providers.base import CredentialRequest, Dependencies

    Fields = dict[str, str | Secret | tuple[str, ...]]

_UUID: Final = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_TENANT: Final = rf"(?:{_UUID}|^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]+)+$)"
_RESOURCE: Final = rf"^(?:https|api)://[A-Za-z0-9._-]{{1,253}}(?:/[A-Za-z0-9._~-]+)*/?$|{_UUID}"
_THUMBPRINT: Final = r"^[A-Za-z0-9_-]{43}$"
_LOGIN: Final = "https://login.microsoftonline.com"
_ASSERTION_LIFE: Final = 300


class Federated(Model):
    """The token of an issuer that the application trusts, in a file that others keep fresh."""

    type: Literal["federated"]
    token_file: Annotated[str, Field(pattern=r"^/[ -~]+$")]


class Certificate(Model):
    """A certificate's private key; `thumbprint` is its SHA-256 in base64url (`x5t#S256`)."""

    type: Literal["certificate"]
    private_key: SecretReference
    thumbprint: Annotated[str, Field(pattern=_THUMBPRINT)]


class ClientSecret(Model):
    """A secret of the application."""

    type: Literal["client_secret"]
    secret: SecretReference


class AzureService(BearerService):
    """The fields of a service of this kind: an API, and the application that calls it.

    `tenant` is the directory's id or one of its domains; `login_url` another cloud's.
    """

    URLS: ClassVar[tuple[str, ...]] = ("base_url", "login_url")

    tenant: Annotated[str, Field(pattern=_TENANT)]
    client_id: Annotated[str, Field(pattern=_UUID)]
    credential: Annotated[Federated | Certificate | ClientSecret, Field(discriminator="type")]
    login_url: Url = _LOGIN


class AzureScope(Model):
    """The fields of a scope of this kind: the resource that its tokens are for.

    `resource` is its application id URI, such as https://graph.microsoft.com, or its id.
    """

    resource: Annotated[str, Field(pattern=_RESOURCE)]


class Azure(PresentsBearer):
    """Get tokens (`Mints`), and say how they go into requests (`Presents`).

    Nothing can end one before its time: Entra's live for 60 to 90 minutes.
    """

    def __init__(self, config: AzureService, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._secrets: Final = dependencies.secrets
        self._clock: Final = dependencies.clock
        self._endpoints: Final = Endpoints(
            dependencies.http,
            ca_file=config.ca_file,
            private=config.allow_private,
            insecure=config.insecure_http,
        )

    @property
    def _url(self) -> str:
        return f"{self._config.login_url.rstrip('/')}/{self._config.tenant}/oauth2/v2.0/token"

    async def mint(self, request: CredentialRequest) -> Minted:
        """Get a token for the scope's resource."""
        scope: AzureScope = request.constraints
        fields: Fields = {
            "grant_type": "client_credentials",
            "client_id": self._config.client_id,
            "scope": f"{scope.resource.rstrip('/')}/.default",
        }
        await self._prove(fields)
        token = read_token(self._url, await self._endpoints.form(self._url, fields))
        return Minted({ACCESS_TOKEN: token.access_token}, self._clock() + token.expires_in)

    async def _prove(self, fields: Fields) -> None:
        credential = self._config.credential
        if isinstance(credential, ClientSecret):
            fields["client_secret"] = await self._secrets.read(credential.secret)
            return
        fields["client_assertion_type"] = ASSERTION_TYPE
        fields["client_assertion"] = (
            await read_proof(credential.token_file)
            if isinstance(credential, Federated)
            else await self._sign(credential)
        )

    async def _sign(self, certificate: Certificate) -> Secret:
        now = int(self._clock())
        claims = {
            "aud": self._url,
            "iss": self._config.client_id,
            "sub": self._config.client_id,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + _ASSERTION_LIFE,
        }
        return await assertion(
            await self._secrets.read(certificate.private_key),
            claims,
            algorithm="PS256",
            reference=certificate.private_key,
            headers={"x5t#S256": certificate.thumbprint},
        )


def _secret_references(config: AzureService) -> tuple[str, ...]:
    match config.credential:
        case ClientSecret() as one:
            return (one.secret,)
        case Certificate() as one:
            return (one.private_key,)
        case _:
            return ()


def _build(config: Any, dependencies: Dependencies) -> Azure:
    return Azure(config, dependencies)


PLUGIN: Final = Plugin(
    kind="azure",
    service_model=AzureService,
    scope_model=AzureScope,
    deliveries=frozenset({"proxy", "credential"}),
    http_rules=True,
    build=_build,
    upstream=upstream_of,
    token_slots=token_slots,
    secret_references=_secret_references,
    least_lifetime=LONGEST_LIFE,
)
