"""What a policy says of an engine of Vault or OpenBao, and of what is asked of it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from providers.base import Templated, TokenSlot, Upstream, upstream_of

_PATH: Final = r"^[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*$"
_NAME: Final = r"^[A-Za-z0-9_.-]+$"
_HEADER: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

Path = Annotated[str, Field(pattern=_PATH, max_length=256)]
Name = Annotated[str, Field(pattern=_NAME, max_length=128)]
TemplatedText = Annotated[str, Templated("A-Za-z0-9._@:/+-"), Field(max_length=1024)]


def _plain(path: str) -> None:
    if {".", ".."} & {*path.split("/")}:
        raise ValueError("has a dot segment; write the path it leads to")


def _no_line(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", value):
        raise ValueError("expected printable ASCII: no other character travels safely in a header")
    return value


class _Model(BaseModel):
    # A secret pasted into a policy must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Bearer(_Model):
    """`Authorization: Bearer <field>`: what the engine made under the name `field`."""

    type: Literal["bearer"]
    field: Name = "token"


class Basic(_Model):
    """`Authorization: Basic`: a user name and a password that the engine made."""

    type: Literal["basic"]
    username_field: Name = "username"
    password_field: Name = "password"  # noqa: S105 - the name of a field


class Header(_Model):
    """A header of its own, such as `X-Consul-Token`, after an optional prefix."""

    type: Literal["header"]
    name: Annotated[str, Field(pattern=_HEADER, max_length=128)]
    field: Name = "token"
    prefix: Annotated[str, AfterValidator(_no_line), Field(max_length=128)] = ""


Presented = Annotated[Bearer | Basic | Header, Field(discriminator="type")]


class VaultDynamicService(_Model):
    """The fields of a service of this kind: one secrets engine.

    `token_policies` are the Vault policies of the tokens that credentials are made with, if
    not all of the broker's own; `token_role` is the token role to make them by. `base_url` is
    where requests through the gateway go, and `credential` how what the engine has made is
    written into them; without both nothing can be called.
    """

    mount: Path
    token_policies: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    token_role: Name | None = None
    base_url: str | None = None
    credential: Presented | None = None
    allow_private: bool = False
    insecure_http: bool = False
    scrub: Literal["on", "off", True, False] = "on"
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None

    @model_validator(mode="after")
    def _check(self) -> VaultDynamicService:
        _plain(self.mount)
        if "root" in (self.token_policies or ()):
            raise ValueError("token_policies: root may do everything; name a narrower policy")
        if (self.base_url is None) != (self.credential is None):
            raise ValueError("give base_url and credential together, or neither")
        place = upstream(self)
        if place is not None and place.scheme == "http" and not self.insecure_http:
            raise ValueError(
                "base_url is plain http, over which no credential is sent; "
                "use https, or say insecure_http: true"
            )
        return self


class VaultDynamicScope(_Model):
    """The fields of a scope of this kind: where under the mount credentials are made, and how.

    `parameters` are sent along (then `method` is POST, unless it is given); the lifetime goes
    under the name `ttl_parameter`, in seconds, if the engine takes one.
    """

    path: Annotated[str, Templated(), Field(pattern=_PATH, max_length=256)]
    method: Literal["GET", "POST"] | None = None
    parameters: dict[Name, TemplatedText | bool | int | tuple[TemplatedText, ...]] = {}
    ttl_parameter: Name | None = None
    unleased: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> VaultDynamicScope:
        _plain(self.path)
        if self.method == "GET" and (self.parameters or self.ttl_parameter):
            raise ValueError("a GET sends no parameters; leave method out, or write POST")
        if self.ttl_parameter in self.parameters:
            raise ValueError("ttl_parameter is the grant's remaining life, and no parameter")
        if self.unleased and self.ttl_parameter is None:
            raise ValueError(
                "unleased: what Vault gives no lease for must end by itself; name in "
                "ttl_parameter where the engine takes a lifetime"
            )
        return self

    def request(self, lifetime: int) -> tuple[str, dict[str, Any] | None]:
        """Return the method and the body that ask for a credential of this lifetime."""
        body: dict[str, Any] = dict(self.parameters)
        if self.ttl_parameter is not None:
            body[self.ttl_parameter] = f"{lifetime}s"
        return self.method or ("POST" if body else "GET"), body or None


def upstream(config: VaultDynamicService) -> Upstream | None:
    """Return where the requests of a service go; raise `ValueError` for what is no base URL."""
    return None if config.base_url is None else upstream_of(config)


def token_slots(config: VaultDynamicService) -> tuple[TokenSlot, ...]:
    """Return where an agent's client puts what it takes for its key."""
    bearer = TokenSlot("bearer", b"authorization", b"Bearer ")
    match config.credential:
        case None:
            return ()
        case Basic():
            return (bearer, TokenSlot("basic", b"authorization"))
        case Header() as header:
            own = TokenSlot("header", header.name.lower().encode(), header.prefix.encode())
            return (bearer, own)
        case _:
            return (bearer,)
