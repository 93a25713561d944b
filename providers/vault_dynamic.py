"""Credentials that an engine of Vault or OpenBao makes on demand, cut to one grant.

Any engine whose path hands out credentials will do: database, PKI, Kubernetes, SSH, AWS, ...
A scope names the path under the service's mount, and what is sent there:

    services:
      orders-db: {provider: vault_dynamic, mount: database}
    scopes:
      orders.read:
        service: orders-db
        delivery: [credential]
        path: creds/orders-readonly

For each credential the broker first makes a Vault token of its own, with the grant's remaining
life as its fixed end, and keeps the token's accessor. What the engine makes is made with that
token, so it belongs to it: Vault ends it with the token, at the latest when the grant ends,
whatever becomes of the broker; and a broker that has crashed at any point finds in the accessor
all that it needs to end it sooner.

An engine that gives no lease (a certificate of a PKI role without `generate_lease`, a signed
SSH key) cannot be made to take it back: then the scope must say `unleased: true` and
`ttl_parameter`, the name under which the engine takes a lifetime.

The broker's login needs what `policies/vault/dynamic.hcl` gives, and whatever the engine's
paths ask for, unless a token role's policies have that.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from providers.base import Minted, Plugin, ProviderError, Reserved, Secret, Templated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import CredentialRequest, Dependencies, VaultCalls

_PATH: Final = r"^[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*$"
_NAME: Final = r"^[A-Za-z0-9_.-]+$"
_DISPLAY_NAME: Final = "agent-token-broker"
_MOST_FIELDS: Final = 64

Path = Annotated[str, Field(pattern=_PATH, max_length=256)]
Name = Annotated[str, Field(pattern=_NAME, max_length=128)]
TemplatedText = Annotated[str, Templated("A-Za-z0-9._@:/+-"), Field(max_length=1024)]


def _plain(path: str) -> None:
    if {".", ".."} & {*path.split("/")}:
        raise ValueError("has a dot segment; write the path it leads to")


class _Model(BaseModel):
    # A secret pasted into a policy must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class VaultDynamicService(_Model):
    """The fields of a service of this kind: one secrets engine.

    `token_policies` are the Vault policies of the tokens that credentials are made with, if
    not all of the broker's own; `token_role` is the token role to make them by.
    """

    mount: Path
    token_policies: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    token_role: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> VaultDynamicService:
        _plain(self.mount)
        if "root" in (self.token_policies or ()):
            raise ValueError("token_policies: root may do everything; name a narrower policy")
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


class VaultDynamic:
    """Have an engine make credentials (`Reserves`, `Renewable`, `Revocable`)."""

    def __init__(self, config: VaultDynamicService, dependencies: Dependencies) -> None:
        self._config = config
        self._vault = dependencies.vault
        self._clock = dependencies.clock

    async def reserve(self, request: CredentialRequest) -> Reserved:
        """Make the token that the credential will belong to, and end with."""
        role = self._config.token_role
        path = f"auth/token/create/{role}" if role else "auth/token/create-orphan"
        life = f"{request.lifetime}s"
        body: dict[str, Any] = {
            "type": "service",
            "ttl": life,
            "explicit_max_ttl": life,
            "renewable": False,
            "display_name": _DISPLAY_NAME,
            "meta": {"agent": request.agent, "grant": request.grant, "scope": request.scope},
        }
        if self._config.token_policies is not None:
            body |= {"policies": self._config.token_policies, "no_default_policy": True}
        answer = await self._calls.call("POST", path, body)
        try:
            auth = answer["auth"]
            token, accessor = auth["client_token"], auth["accessor"]
            ends_in_time = 0 < auth["lease_duration"] <= request.lifetime
            orphan, kind = auth["orphan"], auth["token_type"]
        except (KeyError, TypeError):
            raise ProviderError("Vault's answer holds no token") from None
        reserved = Reserved({"accessor": accessor}, Secret(token.encode()))
        if not (ends_in_time and orphan and kind == "service"):
            await self.revoke(reserved.handle)
            raise ProviderError(
                "Vault made a token that is not as asked: a service token without a parent, which "
                f"ends with the grant; see the token role {role!r} (orphan, token_type, period)"
            )
        return reserved

    async def mint_reserved(self, request: CredentialRequest, reserved: Reserved) -> Minted:
        """Have the engine make the credential with that token."""
        scope: VaultDynamicScope = request.constraints
        began = self._clock()
        method, body = scope.request(request.lifetime)
        path = f"{self._config.mount}/{scope.path}"
        # Once: of a call that was made twice the first credential would be nobody's.
        answer = await self._calls.call(method, path, body, token=reserved.secret, repeat=False)
        fields = _fields(answer)
        lease = answer.get("lease_id") or ""
        if not lease:
            return self._unleased(scope, fields, reserved.handle, began + request.lifetime)
        handle = {**reserved.handle, "lease": lease}
        ends, renewable = began + request.lifetime, bool(answer.get("renewable"))
        expires_at = began + float(answer["lease_duration"])
        if renewable and expires_at < ends:
            with suppress(ProviderError):  # then it lives as long as it does, for now
                expires_at = await self.renew(handle, request.lifetime)
        return Minted(fields, min(expires_at, ends), handle, renewable)

    async def renew(self, handle: Mapping[str, str], lifetime: int) -> float:
        """Renew the lease; the engine's role may not let it live that long."""
        if "lease" not in handle:
            raise ProviderError("Vault gave no lease that could be renewed")
        began = self._clock()
        body = {"lease_id": handle["lease"], "increment": lifetime}
        answer = await self._calls.call("POST", "sys/leases/renew", body)
        try:
            granted = float(answer["lease_duration"])
        except (KeyError, TypeError, ValueError):
            raise ProviderError("Vault's answer does not say how long the lease lives") from None
        return began + min(granted, lifetime)

    async def revoke(self, handle: Mapping[str, str]) -> None:
        """End the lease, and only once that is done the token it belongs to.

        A token's end is a promise to end its leases; that of a lease is waited for here.
        """
        if "lease" in handle:
            body = {"lease_id": handle["lease"], "sync": True}
            await self._calls.call("POST", "sys/leases/revoke", body)
        await self._calls.call(
            "POST", "auth/token/revoke-accessor", {"accessor": handle["accessor"]}
        )

    def _unleased(
        self,
        scope: VaultDynamicScope,
        fields: Mapping[str, Secret],
        handle: Mapping[str, str],
        ends: float,
    ) -> Minted:
        if not scope.unleased:
            raise ProviderError(
                f"Vault gave no lease for {scope.path}, so that it could not be revoked; have "
                "the engine's role give one (generate_lease), or write unleased: true and "
                "ttl_parameter in the policy"
            )
        told = fields.get("expiration")
        expires_at = ends if told is None else _epoch(told)
        return Minted(fields, expires_at, handle)

    @property
    def _calls(self) -> VaultCalls:
        if self._vault is None:
            raise ProviderError(
                "the broker has no Vault; set address in the table [vault] of broker.toml"
            )
        return self._vault


def _fields(answer: Mapping[str, Any]) -> dict[str, Secret]:
    """Return what the engine made, by its own names; what is no text as JSON."""
    data = answer.get("data")
    if not isinstance(data, dict) or not 0 < len(data) <= _MOST_FIELDS:
        raise ProviderError("Vault's answer holds no credential")
    return {
        name: Secret((value if isinstance(value, str) else json.dumps(value)).encode())
        for name, value in data.items()
    }


def _epoch(expiration: Secret) -> float:
    try:
        return float(expiration.reveal())
    except ValueError:
        raise ProviderError("Vault's answer does not say when the credential ends") from None


def _build(config: Any, dependencies: Dependencies) -> VaultDynamic:
    return VaultDynamic(config, dependencies)


PLUGIN: Final = Plugin(
    kind="vault_dynamic",
    service_model=VaultDynamicService,
    scope_model=VaultDynamicScope,
    deliveries=frozenset({"credential"}),
    http_rules=False,
    build=_build,
    upstream=lambda _: None,
    token_slots=lambda _: (),
    secret_references=lambda _: (),
    needs_vault=True,
)
