"""Supply a static credential to an HTTP API, whichever way that API wants to be shown it.

A service of this kind says where it is (`base_url`) and how its key is presented
(`credential`). Rules of a scope (`GET /v1/**`) speak of the path after the service's name in
the gateway's URL; the path of `base_url` is put before it and is no part of a rule.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from providers.base import (
    Injection,
    Plugin,
    ProviderError,
    Secret,
    TokenSlot,
    upstream_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from providers.base import CredentialRequest, Dependencies

    Read = Callable[[str], Awaitable[bytes]]
    ReadFit = Callable[[str, re.Pattern[bytes]], Awaitable[bytes]]

FRESH_FOR: Final = 10.0
"""Seconds for which the gateway may reuse a value: how long a rotated key lives on there."""

_REFERENCE: Final = r"^[a-z][a-z0-9_]*:[^\s\x00-\x1f]+$"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UNSAFE_IN_HEADER: Final = re.compile(rb"[^\x20-\x7e]|^\x20|\x20$|^$")
_UNSAFE_IN_COOKIE: Final = re.compile(rb"[^\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]|^$")
_UNSAFE_IN_USER_NAME: Final = re.compile(rb"[\x00-\x1f\x7f:]|^$")
_UNSAFE: Final = re.compile(rb"[\x00-\x1f\x7f]|^$")
_RESERVED_HEADERS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


def _reference(value: str) -> str:
    if not re.fullmatch(_REFERENCE, value):
        raise ValueError(
            "expected a secret reference such as vault:kv/stripe#key or embedded:stripe; "
            "a policy never holds the secret itself"
        )
    return value


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("expected a header name such as X-Api-Key")
    if value.lower() in _RESERVED_HEADERS:
        raise ValueError(f"{value} frames the message and cannot carry a credential")
    return value


def _cookie_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("expected a cookie name such as session")
    return value


def _header_text(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", value):
        raise ValueError("expected printable ASCII: no other character travels safely in a header")
    return value


SecretReference = Annotated[
    str, AfterValidator(_reference), Field(json_schema_extra={"pattern": _REFERENCE})
]
HeaderName = Annotated[str, AfterValidator(_header_name)]
CookieName = Annotated[str, AfterValidator(_cookie_name)]
HeaderText = Annotated[str, AfterValidator(_header_text)]


class _Model(BaseModel):
    # A secret pasted where a reference belongs must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Bearer(_Model):
    """`Authorization: Bearer <secret>` (RFC 6750)."""

    type: Literal["bearer"]
    secret: SecretReference


class Basic(_Model):
    """`Authorization: Basic <user:password>` (RFC 7617); either part may be a secret.

    `username` is written as it stands, `username_secret` and `secret` (the password) are
    secret references. A part left out is empty.
    """

    type: Literal["basic"]
    username: HeaderText | None = None
    username_secret: SecretReference | None = None
    secret: SecretReference | None = None

    @model_validator(mode="after")
    def _complete(self) -> Basic:
        if self.username is not None and self.username_secret is not None:
            raise ValueError("give username or username_secret, not both")
        if self.username is not None and ":" in self.username:
            hint = "; a secret reference goes into username_secret"
            is_reference = re.fullmatch(_REFERENCE, self.username)
            raise ValueError(f"a Basic user name has no colon{hint if is_reference else ''}")
        if self.username_secret is None and self.secret is None:
            raise ValueError("give secret (the password), username_secret, or both")
        return self


class SecretHeader(_Model):
    """One header that carries a secret, after an optional prefix such as `Token `."""

    name: HeaderName
    secret: SecretReference
    prefix: HeaderText = ""


class Header(_Model):
    """One header (`name`, `secret`, `prefix`), or several under `headers`."""

    type: Literal["header"]
    name: HeaderName | None = None
    secret: SecretReference | None = None
    prefix: HeaderText = ""
    headers: tuple[SecretHeader, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Header:
        given = (self.name is not None, self.secret is not None, bool(self.headers))
        if given not in {(True, True, False), (False, False, True)}:
            raise ValueError("give name and secret, or a list of them under headers")
        if self.headers and self.prefix:
            raise ValueError("give each entry of headers its own prefix")
        names = [header.name.lower() for header in self.headers]
        if len(set(names)) != len(names):
            raise ValueError("headers names the same header twice")
        return self

    def all(self) -> tuple[SecretHeader, ...]:
        """Return the headers, whichever way they were written."""
        if self.name is None or self.secret is None:
            return self.headers
        return (SecretHeader(name=self.name, secret=self.secret, prefix=self.prefix),)


class Query(_Model):
    """A query parameter. A task token is never accepted there (RFC 6750, 2.3)."""

    type: Literal["query"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]+$")]
    secret: SecretReference


class Cookie(_Model):
    """A cookie (RFC 6265)."""

    type: Literal["cookie"]
    name: CookieName
    secret: SecretReference


class Template(_Model):
    """A header made of text and several secrets: `value: "id={a} key={b}"`."""

    type: Literal["template"]
    header: HeaderName
    value: HeaderText
    secrets: Annotated[dict[str, SecretReference], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Template:
        try:
            parts = tuple(Formatter().parse(self.value))
        except ValueError as error:
            raise ValueError(f"value: {error}; write {{{{ for a brace of its own") from None
        if any(spec or conversion for _, _, spec, conversion in parts):
            raise ValueError("value: a placeholder is a bare name in braces, such as {a}")
        odd = {name for _, name, _, _ in parts if name is not None} ^ set(self.secrets)
        if odd:
            names = ", ".join(sorted(odd)) or "{}"
            raise ValueError(f"value and secrets do not name the same placeholders: {names}")
        return self


Credential = Annotated[
    Bearer | Basic | Header | Query | Cookie | Template, Field(discriminator="type")
]


class HttpApiService(_Model):
    """The fields of a service of this kind; `scrub` hides a credential that it echoes."""

    base_url: str
    credential: Credential
    allow_private: bool = False
    insecure_http: bool = False
    scrub: Literal["on", "off", True, False] = "on"
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None

    @model_validator(mode="after")
    def _complete(self) -> HttpApiService:
        upstream = upstream_of(self)
        if upstream.scheme == "http" and not self.insecure_http:
            raise ValueError(
                "base_url is plain http, over which no credential is sent; "
                "use https, or say insecure_http: true"
            )
        if upstream.scheme == "http" and self.ca_file is not None:
            raise ValueError("ca_file says nothing about a plain http base_url")
        return self


class HttpApiScope(_Model):
    """A scope of this kind has its `allow` and `deny` rules and nothing else."""


class HttpApi:
    """Read the service's secrets and lay them out as the API wants them (`Injects`)."""

    def __init__(self, config: HttpApiService, dependencies: Dependencies) -> None:
        self._credential = config.credential
        self._secrets = dependencies.secrets

    async def injection(self, request: CredentialRequest) -> Injection:  # noqa: ARG002
        """Return the same credential for every grant: it is the service's, and static."""
        used: list[Secret] = []

        async def read(reference: str) -> bytes:
            secret = await self._secrets.read(reference)
            used.append(secret)
            return secret.reveal()

        injection = await _injection(self._credential, read)
        return replace(injection, secrets=tuple(used))


def _fit(unsafe: re.Pattern[bytes], reference: str, value: bytes) -> bytes:
    if unsafe.search(value):
        raise ProviderError(
            f"the value of {reference} is empty or holds a character that cannot be sent there; "
            "a trailing line break is the usual cause: store it again without"
        )
    return value


def _in_headers(*headers: tuple[str, bytes]) -> Injection:
    written = tuple((name.encode(), Secret(value)) for name, value in headers)
    return Injection(headers=written, fresh_for=FRESH_FOR)


async def _injection(credential: Credential, read: Read) -> Injection:
    async def secret(reference: str, unsafe: re.Pattern[bytes] = _UNSAFE_IN_HEADER) -> bytes:
        return _fit(unsafe, reference, await read(reference))

    match credential:
        case Bearer():
            return _in_headers(("Authorization", b"Bearer " + await secret(credential.secret)))
        case Basic():
            return _in_headers(("Authorization", b"Basic " + await _user_pass(credential, secret)))
        case Header():
            values = [
                header.prefix.encode() + await secret(header.secret) for header in credential.all()
            ]
            return _in_headers(
                *zip((header.name for header in credential.all()), values, strict=True)
            )
        case Query():
            encoded = quote(await secret(credential.secret, _UNSAFE), safe="").encode()
            query = ((credential.name.encode(), Secret(encoded)),)
            return Injection(query=query, fresh_for=FRESH_FOR)
        case Cookie():
            value = await secret(credential.secret, _UNSAFE_IN_COOKIE)
            cookies = ((credential.name.encode(), Secret(value)),)
            return Injection(cookies=cookies, fresh_for=FRESH_FOR)
        case Template():
            value = b""
            for text, name, _, _ in Formatter().parse(credential.value):
                value += text.encode()
                value += b"" if name is None else await secret(credential.secrets[name])
            return _in_headers((credential.header, value))


async def _user_pass(credential: Basic, secret: ReadFit) -> bytes:
    user = (credential.username or "").encode()
    if credential.username_secret is not None:
        user = await secret(credential.username_secret, _UNSAFE_IN_USER_NAME)
    password = b""
    if credential.secret is not None:
        password = await secret(credential.secret, _UNSAFE)
    return base64.b64encode(user + b":" + password)


def _token_slots(config: HttpApiService) -> tuple[TokenSlot, ...]:
    bearer = TokenSlot("bearer", b"authorization", b"Bearer ")
    match config.credential:
        case Basic():
            return (bearer, TokenSlot("basic", b"authorization"))
        case Header() as header:
            own = (
                TokenSlot("header", one.name.lower().encode(), one.prefix.encode())
                for one in header.all()
            )
            return (bearer, *own)
        case Cookie() as cookie:
            return (bearer, TokenSlot("cookie", cookie.name.encode()))
        case _:
            return (bearer,)


def _secret_references(config: HttpApiService) -> tuple[str, ...]:
    match config.credential:
        case Bearer() | Query() | Cookie() as one:
            return (one.secret,)
        case Basic() as basic:
            return tuple(ref for ref in (basic.username_secret, basic.secret) if ref is not None)
        case Header() as header:
            return tuple(one.secret for one in header.all())
        case Template() as template:
            return tuple(template.secrets.values())


def _build(config: Any, dependencies: Dependencies) -> HttpApi:
    return HttpApi(config, dependencies)


PLUGIN: Final = Plugin(
    kind="http_api",
    service_model=HttpApiService,
    scope_model=HttpApiScope,
    deliveries=frozenset({"proxy"}),
    http_rules=True,
    build=_build,
    upstream=upstream_of,
    token_slots=_token_slots,
    secret_references=_secret_references,
)
