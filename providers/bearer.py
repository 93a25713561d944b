"""What providers have in common whose credential is an access token in `Authorization: Bearer`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from providers.base import Injection, Secret, TokenSlot, parse_base_url

if TYPE_CHECKING:
    from providers.base import CredentialRequest, Minted

ACCESS_TOKEN: Final = "access_token"  # noqa: S105 - the name of a field
"""The field of a minted credential that holds its token."""

SLOTS: Final = (TokenSlot("bearer", b"authorization", b"Bearer "),)
"""Where an agent's client puts what it believes is its access token."""

_REFERENCE: Final = r"^[a-z][a-z0-9_]*:[^\s\x00-\x1f]+$"


def _reference(value: str) -> str:
    if not re.fullmatch(_REFERENCE, value):
        raise ValueError(
            "expected a secret reference such as vault:kv/crm#secret or embedded:crm; "
            "a policy never holds the secret itself"
        )
    return value


def _url(value: str) -> str:
    parse_base_url(value)
    return value


SecretReference = Annotated[
    str, AfterValidator(_reference), Field(json_schema_extra={"pattern": _REFERENCE})
]
Url = Annotated[str, AfterValidator(_url), Field(json_schema_extra={"format": "uri"})]


class Model(BaseModel):
    """A part of a policy: unknown fields are refused, and no error text repeats a value."""

    # A secret pasted where a reference belongs must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BearerService(Model):
    """The fields of a service that say where its API is; `URLS` are those that hold a URL."""

    URLS: ClassVar[tuple[str, ...]] = ("base_url",)

    base_url: Url
    allow_private: bool = False
    insecure_http: bool = False
    scrub: Literal["on", "off", True, False] = "on"
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None

    @model_validator(mode="after")
    def _check_urls(self) -> BearerService:
        for name in self.URLS:
            url = getattr(self, name)
            if url is not None and parse_base_url(url).scheme == "http" and not self.insecure_http:
                raise ValueError(
                    f"{name} is plain http, over which no credential is sent; "
                    "use https, or say insecure_http: true"
                )
        return self


class PresentsBearer:
    """Say how a token goes into requests (`providers.base.Presents`; RFC 6750, 2.1)."""

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:  # noqa: ARG002
        """Return the header that carries a token."""
        token = minted.fields[ACCESS_TOKEN]
        written = Secret(b"Bearer " + token.reveal())
        return Injection(headers=((b"Authorization", written),), secrets=(token,))


def token_slots(config: Any) -> tuple[TokenSlot, ...]:  # noqa: ARG001 - the same for all
    """Return `SLOTS`."""
    return SLOTS
