"""Get access tokens for one grant, with no more than the scope's part of what the client may do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from providers.base import Minted, ProviderError, Secret
from providers.bearer import ACCESS_TOKEN, PresentsBearer
from providers.oauth2.config import (
    ClientSecret,
    JwtBearer,
    OAuth2Scope,
    OAuth2Service,
    PrivateKeyJwt,
    RefreshToken,
)
from providers.tokens import (
    ASSERTION_TYPE,
    JWT_BEARER,
    Endpoints,
    assertion,
    read_refresh_token,
    read_token,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import CredentialRequest, Dependencies
    from providers.state import SharedState
    from providers.tokens import Answer, Token

    Fields = dict[str, str | Secret | tuple[str, ...]]

_ASSERTION_LIFE: Final = 300


class OAuth2(PresentsBearer):
    """Get tokens (`Mints`), and say how they go into requests (`Presents`)."""

    def __init__(self, config: OAuth2Service, dependencies: Dependencies) -> None:
        self._config: Final = config
        self._secrets: Final = dependencies.secrets
        self._clock: Final = dependencies.clock
        self._state: Final[SharedState | None] = dependencies.state
        self._endpoints: Final = Endpoints(
            dependencies.http,
            ca_file=config.ca_file,
            private=config.allow_private,
            insecure=config.insecure_http,
        )

    async def mint(self, request: CredentialRequest) -> Minted:
        """Get a token with the scope's rights, and see that it has no others."""
        scope: OAuth2Scope = request.constraints
        if isinstance(self._config.grant, RefreshToken):
            # Whoever asked may give up: what the answer holds must be kept all the same.
            refreshing = asyncio.ensure_future(self._refresh(self._config.grant, scope))
            refreshing.add_done_callback(_look_at)
            token = await asyncio.shield(refreshing)
        else:
            answer = await self._ask(await self._grant(), scope)
            token = read_token(self._config.token_url, answer)
        excess = _excess(token, scope)
        if excess is not None:
            await self._discard(token.access_token)
            raise ProviderError(
                f"{self._config.token_url} gave a token with more scopes than were asked for: "
                f"{excess}; it was not used",
                untouched=False,
            )
        fields = {ACCESS_TOKEN: token.access_token}
        return Minted(fields, self._clock() + token.expires_in, self._handle(token.access_token))

    def _handle(self, token: Secret) -> Mapping[str, str]:  # noqa: ARG002 - nothing can end it
        return {}

    async def _discard(self, token: Secret) -> None:
        """End a token that is not to be used, where that can be done."""

    async def _ask(self, fields: Fields, scope: OAuth2Scope) -> Answer:
        if scope.oauth_scopes is not None:
            fields["scope"] = " ".join(scope.oauth_scopes)
        if scope.audience is not None:
            fields["audience"] = scope.audience
        if scope.resource is not None:
            fields["resource"] = scope.resource
        url = self._config.token_url
        basic = await self._authenticate(fields)
        return await self._endpoints.form(url, fields, basic)

    async def _grant(self) -> Fields:
        grant = self._config.grant
        if not isinstance(grant, JwtBearer):
            return {"grant_type": "client_credentials"}
        claims = {"iss": grant.issuer, "sub": grant.subject}
        signed = await self._assert(grant, claims)
        return {"grant_type": JWT_BEARER, "assertion": signed}

    async def _authenticate(self, fields: Fields) -> tuple[str, Secret] | None:
        """Add what proves the client to a form; return what proves it by HTTP Basic."""
        client = self._config.client
        match client:
            case ClientSecret(type="client_secret_basic"):
                return client.id, await self._secrets.read(client.secret)
            case ClientSecret():
                fields["client_id"] = client.id
                fields["client_secret"] = await self._secrets.read(client.secret)
            case PrivateKeyJwt():
                fields["client_id"] = client.id
                fields["client_assertion_type"] = ASSERTION_TYPE
                claims = {"iss": client.id, "sub": client.id}
                fields["client_assertion"] = await self._assert(client, claims)
            case _ if client is not None:
                fields["client_id"] = client.id
        return None

    async def _assert(self, signer: JwtBearer | PrivateKeyJwt, claims: dict[str, Any]) -> Secret:
        now = int(self._clock())
        return await assertion(
            await self._secrets.read(signer.private_key),
            {
                **claims,
                "aud": signer.audience or self._config.token_url,
                "iat": now,
                "exp": now + _ASSERTION_LIFE,
            },
            algorithm=signer.algorithm,
            reference=signer.private_key,
            headers={} if signer.key_id is None else {"kid": signer.key_id},
        )

    async def _refresh(self, grant: RefreshToken, scope: OAuth2Scope) -> Token:
        """Use the newest refresh token, alone among all processes, and keep the next one."""
        if self._state is None:
            raise ProviderError("this broker has nowhere to keep a refresh token")
        first = await self._secrets.read(grant.refresh_token)
        config = self._config
        client = "" if config.client is None else config.client.id
        # One client may act for several people, each with a refresh token of their own.
        key = f"oauth2 {config.token_url} {client} {grant.refresh_token}"
        async with self._state.exclusive(key) as held:
            newest = _newest(held.value, first)
            fields: Fields = {"grant_type": "refresh_token", "refresh_token": newest}
            answer = await self._ask(fields, scope)
            following = read_refresh_token(answer)
            if following is not None and following != newest:
                # Before the access token is looked at: the one before may be good for nothing by
                # now, even if that token is refused.
                await held.keep(_kept(first, following))
        return read_token(config.token_url, answer)


class RevocableOAuth2(OAuth2):
    """The same, where tokens can be ended (`Revocable`, RFC 7009)."""

    async def revoke(self, handle: Mapping[str, str]) -> None:
        """End a token; of one that has ended already the endpoint says the same."""
        url = self._config.revocation_url
        if url is None:
            raise ProviderError("the service names no revocation_url")
        fields: Fields = {
            "token": Secret(handle["token"].encode()),
            "token_type_hint": "access_token",
        }
        basic = await self._authenticate(fields)
        answer = await self._endpoints.form(url, fields, basic)
        if not answer.good:
            raise refused(url, answer)

    async def _discard(self, token: Secret) -> None:
        with suppress(ProviderError):  # then it lives to its end, in nobody's hands
            await self.revoke(self._handle(token))

    def _handle(self, token: Secret) -> Mapping[str, str]:
        return {"token": token.reveal().decode()}


def build(config: Any, dependencies: Dependencies) -> OAuth2:
    """Return the provider of a service."""
    kind = OAuth2 if config.revocation_url is None else RevocableOAuth2
    return kind(config, dependencies)


def _look_at(refreshing: asyncio.Future[Token]) -> None:
    """Take note of an error for whoever has given up waiting, so that nothing logs its text."""
    if not refreshing.cancelled():
        refreshing.exception()


def _excess(token: Token, scope: OAuth2Scope) -> str | None:
    if token.scope is None or scope.oauth_scopes is None:
        return None
    more = sorted(set(token.scope) - set(scope.oauth_scopes))
    return f"{len(more)} of them" if more else None


def _newest(kept: Secret | None, first: Secret) -> Secret:
    """Return the refresh token to use: what was kept, if it descends from `first`."""
    if kept is None:
        return first
    document = json.loads(kept.reveal())
    if document["first"] != _digest(first):
        return first
    return Secret(document["newest"].encode())


def _kept(first: Secret, newest: Secret) -> Secret:
    document = {"first": _digest(first), "newest": newest.reveal().decode()}
    return Secret(json.dumps(document).encode())


def _digest(secret: Secret) -> str:
    return hashlib.sha256(secret.reveal()).hexdigest()
