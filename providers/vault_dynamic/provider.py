"""Have an engine make a credential under a token of its own, and end both."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from providers.base import Injection, Minted, ProviderError, Reserved, Secret
from providers.vault_dynamic.fields import Basic, Bearer, Header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import CredentialRequest, Dependencies, VaultCalls
    from providers.vault_dynamic.fields import VaultDynamicScope, VaultDynamicService

_DISPLAY_NAME: Final = "agent-token-broker"
_MOST_FIELDS: Final = 64
_FIT: Final = re.compile(rb"[\x21-\x7e]+")
_FIT_USER: Final = re.compile(rb"[^\x00-\x1f\x7f:]+")
_FIT_PASSWORD: Final = re.compile(rb"[^\x00-\x1f\x7f]+")


class VaultDynamic:
    """Have an engine make credentials (`Reserves`, `Renewable`, `Revocable`, `Presents`)."""

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

    def present(self, minted: Minted, request: CredentialRequest) -> Injection:
        """Return what the engine has made as the service wants to be shown it."""
        match self._config.credential:
            case None:
                raise ProviderError(f"service {request.service} says no `credential` to present")
            case Bearer() as bearer:
                secret = _field(minted, bearer.field, _FIT)
                return _in_header(b"Authorization", b"Bearer " + secret.reveal(), secret)
            case Header() as header:
                secret = _field(minted, header.field, _FIT)
                value = header.prefix.encode() + secret.reveal()
                return _in_header(header.name.encode(), value, secret)
            case Basic() as basic:
                user = _field(minted, basic.username_field, _FIT_USER)
                password = _field(minted, basic.password_field, _FIT_PASSWORD)
                both = base64.b64encode(user.reveal() + b":" + password.reveal())
                return _in_header(b"Authorization", b"Basic " + both, password)

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
        expires_at = ends
        if "expiration" in fields:
            expires_at = _epoch(fields["expiration"])
        elif "signed_key" in fields:
            expires_at = _end_of_certificate(fields["signed_key"])
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


def _end_of_certificate(signed_key: Secret) -> float:
    """Return when a certificate of OpenSSH ends: of this the engine itself says nothing."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - SSH alone needs it
        SSHCertificate,
        load_ssh_public_identity,
    )

    try:
        identity = load_ssh_public_identity(signed_key.reveal())
    except (ValueError, TypeError):
        identity = None
    if not isinstance(identity, SSHCertificate):
        raise ProviderError("Vault's answer holds a signed_key that is no SSH certificate")
    return float(identity.valid_before)


def _epoch(expiration: Secret) -> float:
    try:
        return float(expiration.reveal())
    except ValueError:
        raise ProviderError("Vault's answer does not say when the credential ends") from None


def _field(minted: Minted, name: str, fit: re.Pattern[bytes]) -> Secret:
    secret = minted.fields.get(name)
    if secret is None:
        made = ", ".join(sorted(minted.fields))
        raise ProviderError(
            f"the engine made no {name!r}, but {made}; mend `credential` of the service"
        )
    if not fit.fullmatch(secret.reveal()):
        raise ProviderError(f"the engine made a {name!r} that cannot be sent in a header")
    return secret


def _in_header(name: bytes, value: bytes, secret: Secret) -> Injection:
    return Injection(headers=((name, Secret(value)),), secrets=(secret,))
