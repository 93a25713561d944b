"""What providers that ask an OAuth token endpoint have in common (RFC 6749, 5; RFC 7523).

Of what an endpoint answers nothing is repeated but its status and its error code, if that is one
of the known: its texts may quote the request.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx
import jwt

from providers.base import ProviderError, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

LONGEST_LIFE: Final = 86_400
"""Seconds that an access token may live: what lives longer is no short-lived credential."""

_PATIENCE: Final = 10.0
_LONGEST_ANSWER: Final = 1 << 20
_LONGEST_TOKEN: Final = 64 << 10
_JWT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "invalid_client": "it does not take the client's id with this secret or key",
        "invalid_grant": "what the client shows has expired, was revoked or used before, or is "
        "another client's; authorise the client anew",
        "invalid_request": "it lacks something that this endpoint wants",
        "invalid_scope": "the client was not granted all that the scope asks for",
        "invalid_target": "the audience or resource is none that the client may ask for",
        "unauthorized_client": "the client may not use this grant type",
        "unsupported_grant_type": "the endpoint knows no such grant type",
        "access_denied": "the client may not have this",
        "temporarily_unavailable": "try again later",
        "server_error": "try again later",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answers; `document` is {} where it is no JSON object."""

    status: int
    document: Mapping[str, Any]

    @property
    def good(self) -> bool:
        """Whether the status says success."""
        return httpx.codes.is_success(self.status)


@dataclass(frozen=True, slots=True)
class Token:
    """An access token that an endpoint has given (RFC 6749, 5.1).

    `expires_in` is in seconds; `scope` is None where the answer names none, which then is what
    was asked for.
    """

    access_token: Secret
    expires_in: float
    scope: tuple[str, ...] | None
    refresh_token: Secret | None


class Endpoints:
    """Call endpoints of one service: each call is made once, and ends within seconds.

    `http` is `Dependencies.http`; the rest is as in `providers.base.Upstream`.
    """

    def __init__(
        self, http: Callable[..., Any], *, ca_file: str | None, private: bool, insecure: bool
    ) -> None:
        self._http: Final = http
        self._options: Final = {
            "ca_file": ca_file,
            "allow_private": private,
            "allow_loopback_http": insecure,
        }

    async def form(
        self,
        url: str,
        fields: Mapping[str, str | Secret | tuple[str, ...]],
        basic: tuple[str, Secret] | None = None,
    ) -> Answer:
        """Post a form, as a client that authenticates by HTTP Basic if that is given."""
        data = {name: _plain(value) for name, value in fields.items()}
        auth = None if basic is None else _basic(*basic)
        return await self._post(url, data=data, auth=auth)

    async def json(self, url: str, body: Mapping[str, Any], bearer: Secret) -> Answer:
        """Post a JSON object with an access token."""
        headers = {"Authorization": f"Bearer {bearer.reveal().decode()}"}
        return await self._post(url, json=dict(body), headers=headers)

    async def _post(self, url: str, **content: Any) -> Answer:
        content["headers"] = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **content.get("headers", {}),
        }
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self._http(**self._options) as client,
                client.stream("POST", url, **content) as response,
            ):
                body = await _read(url, response)
        except TimeoutError:
            raise ProviderError(
                f"{url} did not answer within {_PATIENCE:.0f} s", retryable=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ExceptionGroup) as error:
            # The class alone: its text may quote what the other side sent.
            raise ProviderError(
                f"{url} cannot be reached: {type(error).__name__}",
                retryable=True,
                untouched=isinstance(error, _NEVER_SENT),
            ) from None
        return Answer(response.status_code, _document(body))


def read_token(url: str, answer: Answer) -> Token:
    """Return the token of a good answer; raise `ProviderError`, saying what to do, otherwise."""
    if not answer.good:
        raise refused(url, answer)
    told = answer.document
    value, life = told.get("access_token"), told.get("expires_in")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value) or len(value) > _LONGEST_TOKEN:
        raise ProviderError(f"{url} answered without an access token", untouched=False)
    if str(told.get("token_type", "")).lower() != "bearer":
        raise ProviderError(
            f"{url} gave a token of another type than Bearer, which nothing here can use",
            untouched=False,
        )
    if isinstance(life, str) and life.isascii() and life.isdecimal() and len(life) < 10:  # noqa: PLR2004 - some endpoints send digits as text
        life = int(life)
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life <= LONGEST_LIFE:
        raise ProviderError(
            f"{url} gave a token that does not say when it ends, or lives for over "
            f"{LONGEST_LIFE} s; have the authorization server give shorter ones",
            untouched=False,
        )
    scope = told.get("scope")
    return Token(
        Secret(value.encode()),
        life,
        tuple(scope.split(" ")) if isinstance(scope, str) and scope else None,
        read_refresh_token(answer),
    )


def read_refresh_token(answer: Answer) -> Secret | None:
    """Return the refresh token of a good answer, whatever its access token is like; or None."""
    told = answer.document.get("refresh_token") if answer.good else None
    usable = isinstance(told, str) and _TOKEN.fullmatch(told)
    return Secret(told.encode()) if usable and isinstance(told, str) else None


def refused(url: str, answer: Answer) -> ProviderError:
    """Return the error for an answer that is none of success (RFC 6749, 5.2)."""
    code = answer.document.get("error")
    known = code if isinstance(code, str) and code in _ADVICE else None
    outage = (
        answer.status >= httpx.codes.INTERNAL_SERVER_ERROR
        or answer.status == httpx.codes.TOO_MANY_REQUESTS
        or known in {"temporarily_unavailable", "server_error"}
    )
    words = f"{answer.status}" if known is None else f"{answer.status} {known}"
    advice = "" if known is None else f": {_ADVICE[known]}"
    return ProviderError(
        f"{url} refused ({words}){advice}",
        retryable=outage,
        code=known or str(answer.status),
        untouched=answer.status < httpx.codes.INTERNAL_SERVER_ERROR,
    )


async def assertion(
    key: Secret,
    claims: Mapping[str, Any],
    *,
    algorithm: Algorithm,
    reference: str,
    headers: Mapping[str, str] | None = None,
) -> Secret:
    """Return claims with a `jti`, signed with a private key in PEM (RFC 7523, 3).

    `reference` names the key in the `ProviderError` of one that cannot be used.
    """
    whole = {"jti": secrets.token_urlsafe(16), **claims}
    try:
        # Reading a key takes milliseconds, for which nobody else should wait.
        signed = await asyncio.to_thread(
            jwt.encode, whole, key.reveal(), algorithm, dict(headers or {})
        )
    except (ValueError, TypeError, jwt.PyJWTError):
        raise ProviderError(
            f"the value of {reference} is no private key in PEM for {algorithm}; store the whole "
            "file, and name its algorithm"
        ) from None
    return Secret(signed.encode())


async def read_proof(name: str) -> Secret:
    """Return the token that an issuer keeps fresh in a file, read anew each time.

    Raise `ProviderError` if there is none.
    """
    return await asyncio.to_thread(_read_proof, name)


def _read_proof(name: str) -> Secret:
    try:
        with Path(name).open("rb") as file:
            content = file.read(_LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise ProviderError(f"token_file {name} cannot be read: {error.strerror}") from None
    if len(content) > _LONGEST_TOKEN or not _JWT.fullmatch(content):
        raise ProviderError(f"token_file {name} holds no token (JWT)")
    return Secret(content)


def _plain(value: str | Secret | tuple[str, ...]) -> str | list[str]:
    if isinstance(value, Secret):
        return value.reveal().decode("utf-8", "surrogateescape")
    return list(value) if isinstance(value, tuple) else value


def _basic(name: str, secret: Secret) -> httpx.BasicAuth:
    # RFC 6749, 2.3.1: both parts are form-encoded first.
    fields = httpx.QueryParams({"": name}), httpx.QueryParams({"": secret.reveal().decode()})
    return httpx.BasicAuth(*(str(field)[1:] for field in fields))


async def _read(url: str, response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > _LONGEST_ANSWER:
            raise ProviderError(f"{url} sent more than {_LONGEST_ANSWER} bytes", untouched=False)
    return bytes(content)


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
