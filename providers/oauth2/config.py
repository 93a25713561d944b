"""What a policy says of an API that speaks OAuth: where its tokens come from, and which ones."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from providers.bearer import BearerService, Model, SecretReference, Url
from providers.tokens import Algorithm  # noqa: TC001 - pydantic reads it

_SCOPE: Final = r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$"
_TEXT: Final = r"^[\x21-\x7e]{1,1024}$"


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("lists the same twice")
    return values


Text = Annotated[str, Field(pattern=_TEXT)]


class ClientSecret(Model):
    """The client shows a secret, in the header or in the form (RFC 6749, 2.3.1)."""

    type: Literal["client_secret_basic", "client_secret_post"]
    id: Text
    secret: SecretReference


class PrivateKeyJwt(Model):
    """The client signs an assertion (RFC 7523, 2.2); `audience` is the token endpoint's URL."""

    type: Literal["private_key_jwt"]
    id: Text
    private_key: SecretReference
    key_id: Text | None = None
    algorithm: Algorithm = "RS256"
    audience: Text | None = None


class PublicClient(Model):
    """The client has no secret of its own."""

    type: Literal["none"]
    id: Text


class ClientCredentials(Model):
    """The client asks for itself (RFC 6749, 4.4)."""

    type: Literal["client_credentials"]


class RefreshToken(Model):
    """The client asks for a person who has authorised it (RFC 6749, 6).

    `refresh_token` refers to the first one. If the endpoint gives another with each answer, the
    broker keeps the newest, sealed; storing another first one makes it begin anew.
    """

    type: Literal["refresh_token"]
    refresh_token: SecretReference


class JwtBearer(Model):
    """The client signs who it asks for (RFC 7523, 2.1); `audience` is the token endpoint's URL."""

    type: Literal["jwt_bearer"]
    issuer: Text
    subject: Text
    private_key: SecretReference
    audience: Text | None = None
    key_id: Text | None = None
    algorithm: Algorithm = "RS256"


class OAuth2Service(BearerService):
    """The fields of a service of this kind: an API, and where its tokens come from.

    `revocation_url` is that of RFC 7009; without one a token lives to its end. It is not for
    `refresh_token`: endpoints may end that together with a token that was made with it.
    """

    URLS: ClassVar[tuple[str, ...]] = ("base_url", "token_url", "revocation_url")

    token_url: Url
    grant: Annotated[ClientCredentials | RefreshToken | JwtBearer, Field(discriminator="type")]
    client: (
        Annotated[ClientSecret | PrivateKeyJwt | PublicClient, Field(discriminator="type")] | None
    ) = None
    revocation_url: Url | None = None

    @model_validator(mode="after")
    def _check(self) -> OAuth2Service:
        if isinstance(self.grant, ClientCredentials) and (
            self.client is None or isinstance(self.client, PublicClient)
        ):
            raise ValueError(
                "client: client_credentials takes a client that proves itself, by "
                "client_secret_basic, client_secret_post or private_key_jwt"
            )
        if isinstance(self.grant, RefreshToken) and self.client is None:
            raise ValueError("client: a refresh token belongs to a client; name it")
        if isinstance(self.grant, RefreshToken) and self.revocation_url is not None:
            raise ValueError(
                "revocation_url: revoking a token could end the refresh token with it; leave it out"
            )
        return self


class OAuth2Scope(Model):
    """The fields of a scope of this kind: what its tokens may do.

    `oauth_scopes` are the API's own names for that (RFC 6749, 3.3). An API that knows none takes
    `all_scopes: true`, alone. `audience` and `resource` (RFC 8707) say which API a token is for.
    """

    oauth_scopes: (
        Annotated[
            tuple[Annotated[str, Field(pattern=_SCOPE)], ...],
            Field(min_length=1, max_length=100),
            AfterValidator(_distinct),
        ]
        | None
    ) = None
    all_scopes: Literal[True] | None = None
    audience: Text | None = None
    resource: Annotated[tuple[Url, ...], Field(min_length=1, max_length=10)] | None = None

    @model_validator(mode="after")
    def _check(self) -> OAuth2Scope:
        if (self.oauth_scopes is None) == (self.all_scopes is None):
            raise ValueError(
                "give oauth_scopes, which narrow what its tokens may do; or, for an API without "
                "any, all_scopes: true"
            )
        return self


def secret_references(config: OAuth2Service) -> tuple[str, ...]:
    """Return what the broker reads for a service."""
    found: list[str] = []
    parts: tuple[Any, ...] = (config.grant, config.client)
    for part in parts:
        for name in ("secret", "private_key", "refresh_token"):
            value = getattr(part, name, None)
            if value is not None:
                found.append(value)
    return tuple(found)
